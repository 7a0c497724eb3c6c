package probe

import (
	"errors"
	"net/netip"
	"testing"

	"gauntlet/middlebox"
)

// The messages byte for byte, and what is no answer to them.
func TestPortMappingMessages(t *testing.T) {
	const request = "\x00\x01\x00\x00\x1b\x58\x1b\x58\x00\x00\x00\x78" // RFC 6886 §3.3
	if got := natPMPRequest(middlebox.UDP, 7000, 120); string(got) != request {
		t.Errorf("NAT-PMP % x, want % x", got, request)
	}
	if got := natPMPRequest(middlebox.UDP, 7000, 0); string(got) != "\x00\x01\x00\x00\x1b\x58\x00\x00\x00\x00\x00\x00" { // §3.4
		t.Errorf("NAT-PMP, given back: % x", got)
	}
	if got := natPMPRequest(middlebox.TCP, 7000, 120); string(got) != "\x00\x02"+request[2:] {
		t.Errorf("NAT-PMP for TCP % x", got)
	}
	answer := []byte("\x00\x81\x00\x00\x00\x00\x00\x09\x1b\x58\x1b\x59\x00\x00\x00\x78")
	if port, err := parseNATPMP(answer, middlebox.UDP, 7000); err != nil || port != 7001 {
		t.Errorf("NAT-PMP's answer: port %d, %v", port, err)
	}
	if port, err := parseNATPMP(answer, middlebox.TCP, 7000); err == nil {
		t.Errorf("NAT-PMP's answer about UDP is taken for one about TCP, of port %d", port)
	}
	nonce := [pcpNonce]byte{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}
	client := netip.MustParseAddr("10.0.1.2")
	mapping := "\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x11\x00\x00\x00\x1b\x58" // RFC 6887 §11.1
	want := "\x02\x01\x00\x00\x00\x00\x00\x78" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x0a\x00\x01\x02" +
		mapping + "\x1b\x58" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x00\x00"
	if got := pcpRequest(client, nonce, middlebox.UDP, 7000, 120); string(got) != want {
		t.Errorf("PCP % x, want % x", got, want)
	}
	pcpAnswer := []byte("\x02\x81\x00\x00\x00\x00\x00\x78" + "\x00\x00\x00\x09" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00" +
		mapping + "\x1b\x59" + "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc6\x12\x00\x05")
	if port, err := parsePCP(pcpAnswer, nonce, middlebox.UDP, 7000); err != nil || port != 7001 {
		t.Errorf("PCP's answer: port %d, %v", port, err)
	}

	if port, err := parsePCP(pcpAnswer, nonce, middlebox.TCP, 7000); err == nil {
		t.Errorf("PCP's answer about UDP is taken for one about TCP, of port %d", port)
	}

	refused := []byte("\x00\x81\x00\x02\x00\x00\x00\x09\x1b\x58\x00\x00\x00\x00\x00\x00")
	var no refusal
	if _, err := parseNATPMP(refused, middlebox.UDP, 7000); !errors.As(err, &no) {
		t.Errorf("NAT-PMP's refusal: %v", err)
	}
	pcpAnswer[3] = 2
	if _, err := parsePCP(pcpAnswer, nonce, middlebox.UDP, 7000); !errors.As(err, &no) {
		t.Errorf("PCP's refusal: %v", err)
	}
	pcpAnswer[3] = 0
	for _, bad := range [][]byte{nil, answer[:4], answer[:15], refused[:2], []byte(request)} {
		if port, err := parseNATPMP(bad, middlebox.UDP, 7000); err == nil {
			t.Errorf("% x is taken for a mapping of %d", bad, port)
		}
	}
	for _, bad := range [][]byte{nil, pcpAnswer[:4], pcpAnswer[:pcpSize-1], []byte(want)} {
		if port, err := parsePCP(bad, nonce, middlebox.UDP, 7000); err == nil {
			t.Errorf("% x is taken for a mapping of %d", bad, port)
		}
	}
	if _, err := parsePCP(pcpAnswer, [pcpNonce]byte{}, middlebox.UDP, 7000); err == nil {
		t.Error("an answer with another nonce is taken")
	}
}
