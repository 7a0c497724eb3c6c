package tests

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"gauntlet/lab/evidence"
	"gauntlet/lab/media"
	"gauntlet/lab/verdict"
)

// changesEvery is how many packets there are to each that testdata/malicious changes.
const changesEvery = 9

// Claim K4 in the lab: a relay that changes media is found out. What comes to an end
// without having left the other is what the end rejects, packet for packet, and the
// rest of the call goes on.
func TestMaliciousRelay(t *testing.T) {
	relay := filepath.Join(t.TempDir(), "malicious")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", relay, "./testdata/malicious")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	dir := filepath.Join(t.TempDir(), "report")
	r, o := results(t, "-o", dir, file(t, "malicious.yaml", fmt.Sprintf(`claims: [K4]
topology:
  middleboxes: {home-a: {preset: symmetric}, home-b: {preset: symmetric}}
  hosts: {login: {}, update: {}, alice: {behind: home-a}, bob: {behind: home-b}, "sn[1-12]": {}}
nodes:
  login: {role: login}
  update: {role: update}
  "sn[1-12]": {role: supernode, exec: [%q]}
  alice: {role: client}
  bob: {role: client}
steps:
  - login: [alice, bob]
    expect: {path: direct}
  - call: {caller: alice, callee: bob, for: 3s}
    expect: {signalling: {path: relayed}, media: {path: relayed, transport: udp, carrying: 1, lost: 0}}
`, relay)))
	for _, c := range r.Checks {
		if c.Verdict != verdict.Pass {
			t.Errorf("%s: %s: %s\n%s", c.ID, c.Verdict, c.Reason, o.stderr)
		}
	}
	place := filepath.Join(dir, "malicious")
	for _, ends := range [][2]string{{"alice", "bob"}, {"bob", "alice"}} {
		came, changed := mediaChanged(t, place, ends[0], ends[1])
		received, rejected := counted(t, filepath.Join(place, "nodes", ends[1]+".log"))
		t.Logf("%s got %d packets, %d of them changed; it received %d and rejected %d", ends[1], came, changed, received, rejected)
		if rejected != changed || received != came-changed || changed < came/changesEvery/2 || came < 3*media.Rate {
			t.Errorf("%s got %d packets, %d of them changed, and says that it received %d and rejected %d", ends[1], came, changed, received, rejected)
		}
	}
}

// mediaChanged counts the media packets that came to one end, and those of them
// that never left the other.
func mediaChanged(t *testing.T, dir, from, to string) (came, changed int) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, evidence.CaptureFile))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var world evidence.World
	if ev, err := evidence.Read(dir); err != nil {
		t.Fatal(err)
	} else {
		world = ev.World
	}
	left, arrived := map[string]bool{}, []string{}
	err = evidence.ReadCapture(f, func(c evidence.CapturedPacket) error {
		p, ok := evidence.ParseFrame(c.Data)
		if !ok || p.Transport != evidence.UDP || p.Payload != media.PacketSize {
			return nil
		}
		payload := c.Data[len(c.Data)-media.PacketSize:]
		host, _, _ := strings.Cut(c.Tap, "/")
		switch {
		case payload[0]>>6 != 2:
		case host == from && p.Tuple.Src.Addr() == world.Host(from).Addresses[0]:
			left[string(payload)] = true
		case host == to && p.Tuple.Dst.Addr() == world.Host(to).Addresses[0]:
			arrived = append(arrived, string(payload))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, payload := range arrived {
		if !left[payload] {
			changed++
		}
	}
	return len(arrived), changed
}

var callOver = regexp.MustCompile(`msg="call over".* received=(\d+) rejected=(\d+)`)

// counted is what an end's log says of the call that is over.
func counted(t *testing.T, log string) (received, rejected int) {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	m := callOver.FindSubmatch(text)
	if m == nil {
		t.Fatalf("%s tells of no call that is over", log)
	}
	received, _ = strconv.Atoi(string(m[1]))
	rejected, _ = strconv.Atoi(string(m[2]))
	return received, rejected
}
