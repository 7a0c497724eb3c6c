package model

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"gauntlet/middlebox"
)

// A field that is new to the model is named, and all that it knows exist.
func TestBeyond(t *testing.T) {
	type tomorrow struct {
		Mapping  string
		Tomorrow bool
	}
	if got := beyond(tomorrow{Mapping: "none"}); got != "" {
		t.Errorf("%q is beyond the model, although it isn't set or is known", got)
	}
	if got := beyond(tomorrow{Tomorrow: true}); got != "Tomorrow" {
		t.Errorf("%q is beyond the model, want Tomorrow", got)
	}
	for _, name := range modelled {
		if _, ok := reflect.TypeFor[middlebox.Behaviour]().FieldByName(name); !ok {
			t.Errorf("a behaviour has no field %s", name)
		}
	}
}

// What goes beyond the model is refused by name.
func TestNewRefuses(t *testing.T) {
	nat := middlebox.Behaviour{Mapping: middlebox.MapEndpointIndependent, Filtering: middlebox.FilterAddressAndPortDependent}
	for field, b := range map[string]middlebox.Behaviour{
		"PortMapping": with(nat, func(b *middlebox.Behaviour) { b.PortMapping = true }),
		"Proxy":       with(nat, func(b *middlebox.Behaviour) { b.Proxy = middlebox.ProxyHTTPConnect }),
	} {
		_, err := New(Config{Behaviour: b, WAN: []netip.Addr{netip.MustParseAddr("198.18.1.1")}, LAN: netip.MustParsePrefix("10.0.1.0/24")})
		if err == nil || !strings.Contains(err.Error(), field) {
			t.Errorf("with %s: %v, want an error about it", field, err)
		}
	}
}

// A tenth of a second's worth may come at once, and then the rate.
func TestRate(t *testing.T) {
	b, err := New(Config{Behaviour: middlebox.Behaviour{UDPRate: 30}})
	if err != nil {
		t.Fatal(err)
	}
	p := Packet{Protocol: middlebox.UDP, From: netip.MustParseAddrPort("10.0.1.2:4000"), To: netip.MustParseAddrPort("198.18.0.9:9")}
	other := p
	other.From = netip.MustParseAddrPort("10.0.1.3:4000")
	for i, c := range []struct {
		p    Packet
		at   time.Duration
		want string
	}{
		{p, 0, ""}, {p, 0, ""}, {p, 0, ""}, {p, 0, middlebox.UDPRateRule}, {other, 0, ""},
		{p, 33 * time.Millisecond, middlebox.UDPRateRule}, {p, 34 * time.Millisecond, ""}, {p, 34 * time.Millisecond, middlebox.UDPRateRule},
		{p, time.Minute, ""}, {p, time.Minute, ""}, {p, time.Minute, ""}, {p, time.Minute, middlebox.UDPRateRule},
	} {
		f, err := b.Handle(Inside, c.p, c.at, First)
		if err != nil {
			t.Fatal(err)
		}
		if f.Dropped != c.want {
			t.Errorf("packet %d at %v: %v, want dropped by %q", i, c.at, f, c.want)
		}
	}
}
