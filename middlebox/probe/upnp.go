package probe

import (
	"bufio"
	"bytes"
	"context"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"

	"gauntlet/middlebox"
)

// ssdpPort is the UDP port of SSDP, UPnP Device Architecture 1.1 §1.3.
const ssdpPort = 1900

// Types of UPnP: WANIPConnection:1 §1.1 and InternetGatewayDevice:1 §1.1.
const (
	upnpDevice  = "urn:schemas-upnp-org:device:InternetGatewayDevice:1"
	upnpService = "urn:schemas-upnp-org:service:WANIPConnection:"
)

// maxDescription bounds what is read of a description or an answer, in bytes.
const maxDescription = 256 << 10

// askUPnP finds the box by a search for it alone (UPnP Device Architecture 1.1
// §1.3.2, unicast), reads its description, and asks for a mapping of the
// same port outside, as AddPortMapping does (WANIPConnection:1 §2.4.16), or
// gives it back (§2.4.17).
func askUPnP(p *prober, at Host, gateway netip.Addr, of middlebox.Protocol, port uint16, seconds uint32) (uint16, error) {
	search := fmt.Sprintf("M-SEARCH * HTTP/1.1\r\nHOST: %v:%d\r\nMAN: \"ssdp:discover\"\r\nST: %s\r\n\r\n", gateway, ssdpPort, upnpDevice)
	answer, err := exchange(p.ctx, at, netip.AddrPortFrom(gateway, ssdpPort), []byte(search))
	if err != nil {
		return 0, err
	}
	found, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
	if err != nil {
		return 0, fmt.Errorf("answer to the search: %w", err)
	}
	found.Body.Close()
	client := httpFrom(at)
	defer client.CloseIdleConnections()
	service, control, err := wanService(p.ctx, client, found.Header.Get("Location"))
	if err != nil {
		return 0, err
	}
	action, arguments := "DeletePortMapping", fmt.Sprintf(
		"<NewRemoteHost></NewRemoteHost><NewExternalPort>%d</NewExternalPort><NewProtocol>%s</NewProtocol>", port, strings.ToUpper(string(of)))
	if seconds > 0 {
		action = "AddPortMapping"
		arguments += fmt.Sprintf("<NewInternalPort>%d</NewInternalPort><NewInternalClient>%v</NewInternalClient><NewEnabled>1</NewEnabled>"+
			"<NewPortMappingDescription>gauntlet</NewPortMappingDescription><NewLeaseDuration>%d</NewLeaseDuration>", port, at.Addr, seconds)
	}
	return port, soap(p.ctx, client, control, service, action, arguments)
}

// httpFrom is an HTTP client on a host.
func httpFrom(at Host) *http.Client {
	return &http.Client{Timeout: patience, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(_ context.Context, network, address string) (c net.Conn, err error) {
			d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: at.Addr.AsSlice()}}
			err = at.Space.Do(func() error { // the socket is opened by the thread that is in the namespace
				c, err = d.Dial("tcp4", address)
				return err
			})
			return c, err
		},
	}}
}

// upnpDescription is what is used of a device's description, UPnP Device
// Architecture 1.1 §2.3.
type upnpDescription struct {
	Device upnpNode `xml:"device"`
}

type upnpNode struct {
	Services []struct {
		Type    string `xml:"serviceType"`
		Control string `xml:"controlURL"`
	} `xml:"serviceList>service"`
	Devices []upnpNode `xml:"deviceList>device"`
}

// wanService returns the type and the control URL of the service that maps
// ports.
func wanService(ctx context.Context, client *http.Client, location string) (service, control string, err error) {
	base, err := url.Parse(location)
	if err != nil {
		return "", "", fmt.Errorf("location of the description: %w", err)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, location, nil)
	if err != nil {
		return "", "", fmt.Errorf("read the description: %w", err)
	}
	response, err := client.Do(request)
	if err != nil {
		return "", "", fmt.Errorf("read the description: %w", err)
	}
	defer response.Body.Close()
	var d upnpDescription
	if err := xml.NewDecoder(io.LimitReader(response.Body, maxDescription)).Decode(&d); err != nil {
		return "", "", fmt.Errorf("read the description: %w", err)
	}
	nodes := []upnpNode{d.Device}
	for len(nodes) > 0 {
		n := nodes[0]
		nodes = append(nodes[1:], n.Devices...)
		for _, s := range n.Services {
			if strings.HasPrefix(s.Type, upnpService) {
				at, err := base.Parse(s.Control)
				if err != nil {
					return "", "", fmt.Errorf("control URL: %w", err)
				}
				return s.Type, at.String(), nil
			}
		}
	}
	return "", "", fmt.Errorf("the description at %s has no service %s", location, upnpService)
}

// soap calls an action, UPnP Device Architecture 1.1 §3.2.
func soap(ctx context.Context, client *http.Client, control, service, action, arguments string) error {
	body := `<?xml version="1.0"?>` +
		`<s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/">` +
		fmt.Sprintf(`<s:Body><u:%s xmlns:u="%s">%s</u:%s></s:Body></s:Envelope>`, action, service, arguments, action)
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, control, strings.NewReader(body))
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	request.Header.Set("Content-Type", `text/xml; charset="utf-8"`)
	request.Header.Set("SOAPAction", fmt.Sprintf(`"%s#%s"`, service, action))
	response, err := client.Do(request)
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, maxDescription))
	if err != nil {
		return fmt.Errorf("%s: %w", action, err)
	}
	if response.StatusCode != http.StatusOK {
		return refusal{fmt.Sprintf("%s: %s: %s", action, response.Status, answer)}
	}
	return nil
}
