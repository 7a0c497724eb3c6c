package probe

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"gauntlet/middlebox"
)

func TestPortsOf(t *testing.T) {
	inside := []uint16{20000, 20001, 20002, 20003, 20004, 20005, 20006, 20007, 20008, 20009, 20010, 20011}
	with := func(change func(i int, port uint16) uint16) (out []uint16) {
		for i, p := range inside {
			out = append(out, change(i, p))
		}
		return out
	}
	random := []uint16{1024, 60001, 33333, 2, 45678, 5, 50000, 12345, 54321, 999, 40404, 1}
	cases := []struct {
		name    string
		outside []uint16
		want    middlebox.Ports
	}{
		{"the same", inside, middlebox.PreservePorts},
		{"one up", with(func(_ int, p uint16) uint16 { return p + 1000 }), middlebox.SequentialPorts},
		{"one up, with a return to the first", with(func(i int, _ uint16) uint16 { return uint16(1024 + (i+7)%12) }), middlebox.SequentialPorts},
		{"scattered", random, middlebox.RandomPorts},
		{"of the same parity", with(func(i int, p uint16) uint16 { return random[i]&^1 | p&1 }), middlebox.ParityPorts},
		{"of one block", with(func(i int, _ uint16) uint16 { return 30000 + random[i]%1024 }), middlebox.BlockPorts},
		{"all but one the same", with(func(i int, p uint16) uint16 {
			if i == 5 {
				return 60000
			}
			return p
		}), middlebox.PreservePorts},
		{"a quarter not the same", with(func(i int, p uint16) uint16 {
			if i%4 == 0 {
				return random[i]
			}
			return p
		}), middlebox.RandomPorts},
	}
	for _, c := range cases {
		var seen []mapped
		for i, port := range c.outside {
			seen = append(seen, mapped{inside[i], netip.AddrPortFrom(netip.MustParseAddr("198.18.1.1"), port)})
		}
		if got := portsOf(seen); got != c.want {
			t.Errorf("%s: %v is %s, want %s", c.name, c.outside, got, c.want)
		}
	}
	// Each of three addresses, which come in no order, has a sequence of its own.
	var seen []mapped
	next := [3]uint16{1024, 50000, 65534}
	for i, a := range []byte{0, 0, 1, 2, 0, 1, 1, 2, 0, 2, 2, 1, 0, 1} {
		seen = append(seen, mapped{uint16(20000 + i), netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 18, 1, a}), next[a])})
		if next[a]++; next[a] == 0 {
			next[a] = 1024
		}
	}
	if got := portsOf(seen); got != middlebox.SequentialPorts {
		t.Errorf("a sequence for each of three addresses is %s", got)
	}
}

// What was dropped is not waited for.
func TestAwaitDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, begun := NewWatch().packet(), time.Now()
		p.drop(Drop{"box", middlebox.NoPortRule})
		if f, err := p.await(t.Context(), p.fated); err != nil || f.dropped == nil {
			t.Errorf("its fate: %v, %v", f, err)
		}
		_, err := p.await(t.Context(), p.arrived)
		if err == nil || err.Error() != "a packet that must arrive was dropped by rule no-port of box" || time.Since(begun) > 0 {
			t.Errorf("its arrival, after %v: %v", time.Since(begun), err)
		}
	})
}

func TestMappingOf(t *testing.T) {
	in, a, b, c := netip.MustParseAddrPort("10.0.0.2:1"), netip.MustParseAddrPort("198.18.1.1:1"), netip.MustParseAddrPort("198.18.1.1:2"), netip.MustParseAddrPort("198.18.1.2:1")
	cases := []struct {
		one, port, address netip.AddrPort
		want               string
	}{
		{in, in, in, mappingNone},
		{a, a, a, "endpoint-independent"},
		{a, a, b, "address-dependent"},
		{a, a, c, "address-dependent"}, // another address of a pool
		{a, b, b, "address-and-port-dependent"},
		{a, b, a, "address-and-port-dependent"},
		{in, in, a, "address-dependent"},
	}
	for _, c := range cases {
		if got := mappingOf(in, c.one, c.port, c.address); got != c.want {
			t.Errorf("seen as %v, %v, %v: %s, want %s", c.one, c.port, c.address, got, c.want)
		}
	}
}

func TestDenial(t *testing.T) {
	udp := func(port uint16) middlebox.Service {
		return middlebox.Service{Protocol: middlebox.UDP, Port: port}
	}
	tcp := func(port uint16) middlebox.Service {
		return middlebox.Service{Protocol: middlebox.TCP, Port: port}
	}
	cases := []struct {
		out  map[middlebox.Service]bool
		want []string
	}{
		{nil, nil},
		{map[middlebox.Service]bool{udp(9): false, tcp(9): false, udp(53): false, tcp(53): false}, nil},
		{map[middlebox.Service]bool{udp(9): true, tcp(9): true, udp(53): true, tcp(53): true}, []string{"login"}},
		{map[middlebox.Service]bool{udp(9): false, tcp(9): true, udp(53): false, tcp(53): true}, []string{"login:tcp"}},
		{map[middlebox.Service]bool{udp(9): false, tcp(9): false, udp(53): true, tcp(53): false}, []string{"login:udp:53"}},
		{map[middlebox.Service]bool{udp(9): true, tcp(9): false, udp(53): true, tcp(53): true}, []string{"login:udp", "login:tcp:53"}},
		{map[middlebox.Service]bool{tcp(9): true, tcp(53): true}, []string{"login:tcp"}}, // UDP is blocked
	}
	for _, c := range cases {
		if got := denial("login", []uint16{53, anyPort}, c.out); !slices.Equal(got, c.want) {
			t.Errorf("out of reach %v: %q, want %q", c.out, got, c.want)
		}
	}
}

// Whatever is declared is no difference from itself, and a measurement of
// nothing is one.
func TestCompareWords(t *testing.T) {
	for _, name := range middlebox.Presets() {
		b := preset(t, name)
		if got := Compare(b, Declared(b)); got != nil {
			t.Errorf("%s differs from itself: %q", name, got)
		}
		if name == "udp-blocked" || name == "tcp-blocked" || name == "http-connect" {
			continue
		}
		if got := Compare(b, Properties{}); len(got) == 0 {
			t.Errorf("%s is certified by a measurement of nothing", name)
		}
	}
}

func TestCompareTiming(t *testing.T) {
	b := preset(t, "port-restricted")
	cases := []struct {
		timing Timing
		want   string // part of the difference; "" if there is none
	}{
		{Timing{Set: 2, Alive: 1.95, Dead: 2.01}, ""},
		{Timing{Set: 2, Alive: 2.9, Dead: 3.0}, "set to 2 s, measured alive after 2.90 s and dead after 3.00 s"},
		{Timing{Set: 2, Alive: 1.0, Dead: 1.1}, "dead after 1.10 s"},
		{Timing{Set: 2, Alive: 3}, "never dead"},
	}
	for _, c := range cases {
		m := Declared(b)
		m.Timing = &c.timing
		got := strings.Join(Compare(b, m), "; ")
		if (got == "") != (c.want == "") || !strings.Contains(got, c.want) {
			t.Errorf("%+v: %q, want %q", c.timing, got, c.want)
		}
	}
	open := Declared(middlebox.Behaviour{})
	open.Timing = &Timing{Set: 2, Alive: 1, Dead: 2}
	if got := Compare(middlebox.Behaviour{}, open); len(got) != 1 {
		t.Errorf("a router that forgets flows: %q, want one difference", got)
	}
}

// The kernel shows what is left of a timer in whole seconds. How old the flow is
// is known as a range.
func TestBegunFrom(t *testing.T) {
	const ms = time.Millisecond
	cases := []struct {
		shown            int
		youngest, oldest time.Duration
		want             int // 0 is that it can't be said
	}{
		{299, 20 * ms, 25 * ms, 300},
		{299, 20 * ms, 900 * ms, 300},
		{299, 20 * ms, 995 * ms, 0}, // a tick more, and it may be 301
		{298, 1100 * ms, 1200 * ms, 300},
		{298, 900 * ms, 1200 * ms, 0},
		{296, 3500 * ms, 3600 * ms, 300},
	}
	for _, c := range cases {
		got, ok := begunFrom(c.shown, c.youngest, c.oldest)
		if ok != (c.want != 0) || ok && got != c.want {
			t.Errorf("%d s left at an age of %v to %v: from %d s, %v; want %d", c.shown, c.youngest, c.oldest, got, ok, c.want)
		}
	}
}

// What is urgent and due comes first, and all else in order.
func TestNextEvent(t *testing.T) {
	now := time.Unix(100, 0)
	at := func(seconds int, urgent bool) event { return event{at: time.Unix(int64(seconds), 0), urgent: urgent} }
	for _, c := range []struct {
		events []event
		want   int
	}{
		{[]event{at(97, false), at(96, false), at(98, false)}, 1},
		{[]event{at(97, false), at(99, true), at(98, true)}, 2},
		{[]event{at(97, false), at(101, true)}, 0},
		{[]event{at(103, false), at(101, true)}, 1},
		{[]event{at(101, false), at(102, true)}, 0},
	} {
		if got := next(c.events, now); got != c.want {
			t.Errorf("%+v: %d is next, want %d", c.events, got, c.want)
		}
	}
}

// What of allow lists, deny lists and blocks is declared by chains.
func TestDeclaredStops(t *testing.T) {
	tcp := func(port uint16) middlebox.Service {
		return middlebox.Service{Protocol: middlebox.TCP, Port: port}
	}
	web := middlebox.Behaviour{Filtering: middlebox.FilterAddressAndPortDependent, Allow: []middlebox.Service{tcp(443), tcp(80)}}
	mail := middlebox.Behaviour{Filtering: middlebox.FilterAddressAndPortDependent, Allow: []middlebox.Service{tcp(25), tcp(443), {Protocol: middlebox.UDP}}}
	noUDP := middlebox.Behaviour{Block: []middlebox.Protocol{middlebox.UDP}, Deny: []middlebox.Deny{{Host: "login"}}}
	cases := []struct {
		chain        []middlebox.Behaviour
		block, allow string
	}{
		{[]middlebox.Behaviour{web}, "udp", "tcp:443 tcp:80"},
		{[]middlebox.Behaviour{mail}, "", "tcp:25 tcp:443"},
		{[]middlebox.Behaviour{web, mail}, "udp", "tcp:443"},
		{[]middlebox.Behaviour{mail, noUDP}, "udp", "tcp:25 tcp:443"},
		{[]middlebox.Behaviour{noUDP}, "udp", ""},
		{[]middlebox.Behaviour{{}}, "", ""},
	}
	for _, c := range cases {
		d := Declared(c.chain...)
		if block, allow := strings.Join(d.Block, " "), strings.Join(d.Allow, " "); block != c.block || allow != c.allow {
			t.Errorf("%+v: block %q, allow %q; want %q, %q", c.chain, block, allow, c.block, c.allow)
		}
	}
	if got := deniable(Declared(noUDP)); !slices.Equal(got, []string{"login:tcp"}) {
		t.Errorf("what can be seen of denying a host where UDP is blocked: %q", got)
	}
}

// The words of the JSON are those of the scenario file.
func TestPropertiesJSON(t *testing.T) {
	d := Declared(middlebox.Behaviour{Mapping: middlebox.MapEndpointIndependent, Filtering: middlebox.FilterAddressDependent, UDPTimeout: 30 * time.Second})
	text, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"mapping":"endpoint-independent"`, `"filtering":"address-dependent"`, `"ports":"preserve"`,
		`"hairpin":false`, `"punch_first":true`, `"udp_timeout_seconds":30`, `"unsolicited":"drop"`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s: lacks %s", text, want)
		}
	}
}
