package evidence_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gauntlet/lab/evidence"
	"gauntlet/lab/evidence/evidencetest"
)

// recorded is a folder with some of everything in it.
func recorded(t *testing.T) string {
	r := homes(t, evidence.AddressAndPortDependent, evidence.AddressAndPortDependent)
	r.Socket(evidence.UDP, "alice", 4000).Send(at("198.18.1.2:5000"), 30)
	r.Connect("alice", 4001, at("198.18.0.9:443")).Send("alice", 2000)
	r.Exchange(evidence.Exchange{
		ID: "1", Function: "login", Caller: "alice", Callee: "server",
		Since: evidencetest.Start, From: evidencetest.Start, To: r.Now, Payload: 2000,
	})
	return r.Write()
}

func edit(t *testing.T, dir, name string, change func([]byte) []byte) {
	t.Helper()
	path := filepath.Join(dir, name)
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestReadBadFolder(t *testing.T) {
	replace := func(old, with string) func([]byte) []byte {
		return func(data []byte) []byte { return bytes.Replace(data, []byte(old), []byte(with), 1) }
	}
	for _, c := range []struct {
		name, file string
		change     func([]byte) []byte
		want       string
	}{
		{"unknown key", evidence.WorldFile, replace(`"hosts"`, `"guests"`), "guests"},
		{"two values", evidence.LossesFile, func(d []byte) []byte { return append(d, "{}"...) }, "more than one value"},
		{"unknown box", evidence.WorldFile, replace(`"behind": "home-a"`, `"behind": "home-z"`), "home-z"},
		{"taken name", evidence.WorldFile, replace(`"name": "alice"`, `"name": "bob"`), "taken"},
		{"circle", evidence.WorldFile, replace(`"name": "home-a"`, `"name": "home-a", "behind": "home-a"`), "circle"},
		{"unknown filtering", evidence.WorldFile, replace(`address-and-port-dependent`, `none`), "none"},
		{"rubbish line", evidence.ConntrackFile, func([]byte) []byte { return []byte("{}\nnot json\n") }, "line 2"},
		{"not pcapng", evidence.CaptureFile, func(d []byte) []byte { d[8] ^= 1; return d }, "little-endian"},
		{"no section", evidence.CaptureFile, func(d []byte) []byte { return d[28:] }, "section header"},
		{"bad length", evidence.CaptureFile, func(d []byte) []byte { d[4] = 13; return d }, "length"},
		{"bad trailer", evidence.CaptureFile, func(d []byte) []byte { d[24]++; return d }, "ends with length"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := recorded(t)
			edit(t, dir, c.file, c.change)
			if _, err := evidence.Read(dir); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Read gives %v, want an error about %q", err, c.want)
			}
		})
	}
	for _, name := range []string{evidence.WorldFile, evidence.CaptureFile, evidence.ConntrackFile, evidence.DropsFile} {
		dir := recorded(t)
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
		if _, err := evidence.Read(dir); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("without %s Read gives %v", name, err)
		}
	}
}

// TestReadCut: a recording that was cut off is read as far as it goes, and is
// never taken for a whole one.
func TestReadCut(t *testing.T) {
	whole, err := evidence.Read(recorded(t))
	if err != nil {
		t.Fatal(err)
	}
	if reasons := whole.Losses.Reasons(); len(reasons) != 0 || len(whole.All()) != 2 || len(whole.Exchanges) != 1 {
		t.Fatalf("the whole recording has losses %v, flows %v, exchanges %v", reasons, whole.All(), whole.Exchanges)
	}
	for name, by := range map[string]int{
		evidence.CaptureFile: 5, evidence.ConntrackFile: 1, evidence.DropsFile: 7, evidence.LossesFile: 0,
	} {
		dir := recorded(t)
		if by == 0 {
			err = os.Remove(filepath.Join(dir, name))
		} else {
			edit(t, dir, name, func(d []byte) []byte { return d[:len(d)-by] })
		}
		if err != nil {
			t.Fatal(err)
		}
		ev, err := evidence.Read(dir)
		if err != nil {
			t.Errorf("%s cut: %v", name, err)
			continue
		}
		if reasons := ev.Losses.Reasons(); len(reasons) != 1 || !strings.Contains(reasons[0], name) {
			t.Errorf("%s cut: losses %v", name, reasons)
		}
	}
}

func TestLosses(t *testing.T) {
	if reasons := (evidence.Losses{
		Taps:    []evidence.TapLosses{{Name: "alice/eth0", Received: 10}},
		Routers: []evidence.RouterLosses{{Name: "home-a", Logged: 3, Rules: map[string]evidence.RuleCount{"unsolicited": {Counted: 3, Logged: 3}}}},
	}).Reasons(); len(reasons) != 0 {
		t.Errorf("nothing is lost and the reasons are %v", reasons)
	}
	for _, c := range []struct {
		losses evidence.Losses
		want   string
	}{
		{evidence.Losses{Taps: []evidence.TapLosses{{Name: "alice/eth0", Received: 10, Dropped: 2}}}, "alice/eth0 lost 2 of 10"},
		{evidence.Losses{Routers: []evidence.RouterLosses{{Name: "home-a", Missing: 4}}}, "4 drop messages of home-a"},
		{evidence.Losses{Routers: []evidence.RouterLosses{{Name: "home-a", Overruns: 1}}}, "home-a ran over"},
		{evidence.Losses{Routers: []evidence.RouterLosses{{Name: "home-a", FailedDumps: 1}}}, "connection table of home-a"},
		{evidence.Losses{Routers: []evidence.RouterLosses{{Name: "home-a", Rules: map[string]evidence.RuleCount{"block-udp": {Counted: 3, Logged: 2}}}}}, "block-udp"},
		{evidence.Losses{Bounded: true}, "bound"},
		{evidence.Losses{Problems: []string{"the disk is full"}}, "disk"},
	} {
		if reasons := c.losses.Reasons(); len(reasons) != 1 || !strings.Contains(reasons[0], c.want) {
			t.Errorf("reasons %v, want one about %q", reasons, c.want)
		}
	}
}

// FuzzReadCapture: no stream makes the reader panic, hold much, or give a
// packet that it cannot have.
func FuzzReadCapture(f *testing.F) {
	var whole bytes.Buffer
	w, err := evidence.NewCaptureWriter(&whole, []string{"alice/eth0", "home-a/wan"})
	if err != nil {
		f.Fatal(err)
	}
	frame := evidencetest.Frame(evidence.Packet{
		Transport: evidence.UDP, Payload: 5,
		Tuple: evidence.Tuple{Src: at("10.0.1.2:4000"), Dst: at("198.18.0.9:53")},
	})
	for i := range 2 {
		if err := w.Packet(i, evidencetest.Start, len(frame), frame); err != nil {
			f.Fatal(err)
		}
	}
	if err := w.Statistics(0, evidencetest.Start, 2, 0); err != nil {
		f.Fatal(err)
	}
	if err := w.Flush(); err != nil {
		f.Fatal(err)
	}
	f.Add(whole.Bytes())
	f.Add(whole.Bytes()[:whole.Len()-3])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		total := 0
		err := evidence.ReadCapture(bytes.NewReader(data), func(p evidence.CapturedPacket) error {
			total += len(p.Data)
			if parsed, ok := evidence.ParseFrame(p.Data); ok && (parsed.Payload < 0 || parsed.Payload > 65535) {
				t.Errorf("payload of %d bytes", parsed.Payload)
			}
			return nil
		})
		if total > len(data) {
			t.Errorf("%d bytes of packets out of %d", total, len(data))
		}
		if errors.Is(err, io.EOF) {
			t.Error("the end of the stream is given as an error")
		}
	})
}

// FuzzRead: whatever one of the folder's files holds, neither Read nor the
// flows panic.
func FuzzRead(f *testing.F) {
	r := homes(f, evidence.AddressAndPortDependent, evidence.AddressAndPortDependent)
	r.Socket(evidence.UDP, "alice", 4000).Send(at("198.18.1.2:5000"), 30)
	r.Connect("alice", 4001, at("198.18.0.9:443")).Close("alice")
	r.Exchange(evidence.Exchange{ID: "1", Caller: "alice", Callee: "server"})
	dir := r.Write()
	names := []string{
		evidence.WorldFile, evidence.CaptureFile, evidence.ConntrackFile,
		evidence.DropsFile, evidence.LossesFile, evidence.ExchangesFile,
	}
	whole := map[string][]byte{}
	for n, name := range names {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			f.Fatal(err)
		}
		whole[name] = data
		f.Add(n, data)
	}
	f.Fuzz(func(t *testing.T, which int, data []byte) {
		if which < 0 || which >= len(names) {
			return
		}
		name := names[which]
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
		if ev, err := evidence.Read(dir); err == nil {
			for _, flow := range ev.All() {
				_ = flow.String()
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), whole[name], 0o644); err != nil {
			t.Fatal(err)
		}
	})
}
