package middlebox

import (
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPresetsAreValidAndInOrder(t *testing.T) {
	want := []string{
		"open", "full-cone", "restricted-cone", "port-restricted", "symmetric", "symmetric-sequential", "confirming-router",
		"cgnat", "stateful-firewall", "udp-blocked", "login-blocked", "tcp-blocked", "web-only", "http-connect",
		"linux", "openwrt", "pf", "pf-static-port", "cisco-asa", "pan-os", "junos-services", "netdefendos", "azure-load-balancer", "google-cloud-nat", "slirp",
	}
	if got := Presets(); !slices.Equal(got, want) {
		t.Errorf("presets %v, want %v", got, want)
	}
	for _, name := range want {
		b, ok := Preset(name)
		if !ok {
			t.Fatalf("no preset %s", name)
		}
		if errs := b.Validate(); len(errs) != 0 {
			t.Errorf("%s: %v", name, errs)
		}
	}
	if _, ok := Preset("no-such"); ok {
		t.Error("a preset that isn't there")
	}
	// A preset that a caller got is the caller's own.
	b, _ := Preset("udp-blocked")
	b.Block[0] = TCP
	if again, _ := Preset("udp-blocked"); again.Block[0] != UDP {
		t.Error("a caller changed the preset")
	}
}

func TestValidate(t *testing.T) {
	eim := Behaviour{Mapping: MapEndpointIndependent, Filtering: FilterAddressAndPortDependent}
	apdm := Behaviour{Mapping: MapAddressAndPortDependent, Filtering: FilterAddressAndPortDependent}
	cases := []struct {
		b    Behaviour
		want []string // how each error begins
	}{
		{Behaviour{}, nil},
		{with(eim, func(b *Behaviour) { b.UDPTimeout = 20 * time.Second; b.Unsolicited = RejectUnsolicited }), nil},
		{with(apdm, func(b *Behaviour) { b.Pool = ArbitraryPool; b.Ports = RandomPorts }), nil},
		{Behaviour{Filtering: FilterAddressDependent, Unsolicited: DropUnsolicited, Block: []Protocol{UDP, TCP}}, nil},
		{Behaviour{Mapping: "cone", Filtering: "some", Ports: "any", Unsolicited: "shout", Refresh: "never", Pool: "deep", UDPTimeout: -1}, []string{
			`mapping: "cone"; expected one of endpoint-independent,`, `filtering: "some"`, `ports: "any"`, `unsolicited: "shout"`, `refresh: "never"`, `pool: "deep"`, "udp_timeout: -1ns",
		}},
		{with(statefulFirewall, func(b *Behaviour) { b.Proxy = ProxyHTTPConnect; b.Unsolicited = RejectUnsolicited }), nil},
		{with(eim, func(b *Behaviour) { b.Proxy = ProxyHTTPConnect }), nil},
		{with(eim, func(b *Behaviour) { b.PortMapping = true }), nil},
		{Behaviour{Proxy: "socks"}, []string{`proxy: "socks"; expected one of http-connect`, "proxy: socks with filtering"}},
		{with(eim, func(b *Behaviour) {
			b.Proxy, b.PortMapping, b.Unsolicited = ProxyHTTPConnect, true, RejectUnsolicited
			b.Allow, b.Block, b.Deny = []Service{{TCP, 443}}, []Protocol{UDP}, []Deny{{Host: "a"}}
			b.UDPRate, b.TCPIdle = 9, time.Minute
		}), []string{
			"proxy: http-connect with allow: tcp:443", "proxy: http-connect with block: udp", "proxy: http-connect with deny: a",
			"proxy: http-connect with udp_rate: 9", "proxy: http-connect with tcp_idle: 1m0s", "proxy: http-connect with port_mapping: true",
		}},
		{with(eim, func(b *Behaviour) { b.Proxy, b.Unsolicited = ProxyHTTPConnect, ConfirmUnsolicited }), []string{"proxy: http-connect with unsolicited: confirm"}},
		{with(statefulFirewall, func(b *Behaviour) { b.PortMapping = true }), []string{"port_mapping: true without mapping means nothing"}},
		{with(eim, func(b *Behaviour) { b.PortMapping, b.Unsolicited = true, ConfirmUnsolicited }), []string{"port_mapping: true with unsolicited: confirm"}},
		{with(eim, func(b *Behaviour) { b.PortMapping, b.Refresh = true, RefreshOutbound }), []string{"port_mapping: true with refresh: outbound"}},
		{with(apdm, func(b *Behaviour) { b.PortMapping, b.Filtering = true, FilterAddressDependent }), []string{"port_mapping: true with mapping: address-and-port-dependent and filtering: address-dependent is not offered"}},
		{with(eim, func(b *Behaviour) { b.UDPTimeout, b.UDPUnreplied = time.Minute, 20*time.Second }), nil},
		{with(eim, func(b *Behaviour) { b.UDPUnreplied, b.Unsolicited = time.Minute, ConfirmUnsolicited }), nil},
		{with(statefulFirewall, func(b *Behaviour) { b.UDPUnreplied = DefaultUDPTimeout }), nil},
		{with(eim, func(b *Behaviour) { b.UDPTimeout, b.UDPUnreplied = time.Minute, time.Minute+time.Second }), []string{"udp_unreplied_timeout: 1m1s is longer than udp_timeout: 1m0s"}},
		{with(eim, func(b *Behaviour) {
			b.UDPUnreplied, b.Filtering, b.Hairpin, b.Refresh = time.Second, FilterAddressDependent, true, RefreshOutbound
		}), []string{
			"udp_unreplied_timeout: 1s with filtering: address-dependent", "udp_unreplied_timeout: 1s with hairpin: true",
			"udp_unreplied_timeout: 1s with refresh: outbound",
		}},
		{Behaviour{UDPUnreplied: time.Second}, []string{"udp_unreplied_timeout: 1s with filtering: endpoint-independent"}},
		{Behaviour{UDPUnreplied: -1}, []string{"udp_unreplied_timeout: -1ns"}},
		{Behaviour{UDPTimeout: 1500 * time.Millisecond}, []string{"udp_timeout: 1.5s; expected whole seconds"}},
		{Behaviour{Block: []Protocol{UDP, "sctp", UDP}}, []string{`block: "sctp"; expected udp or tcp`, "block: udp twice"}},
		{Behaviour{Deny: []Deny{{Host: "a"}, {Host: "a"}, {Host: "b", Port: 80}, {}}}, []string{"deny: a twice", `deny: "b:80"`, `deny: ""`}},
		{Behaviour{Ports: RandomPorts, Pool: PairedPool, Refresh: RefreshBoth, Hairpin: true, Unsolicited: ConfirmUnsolicited}, []string{
			"ports: random without mapping", "pool: paired without mapping", "refresh: both without mapping", "hairpin: true without mapping",
			"unsolicited: confirm without mapping", "unsolicited: confirm with filtering: endpoint-independent",
		}},
		{with(eim, func(b *Behaviour) {
			b.Ports, b.Pool, b.Hairpin, b.Refresh = RandomPorts, ArbitraryPool, true, RefreshOutbound
		}), nil},
		{with(apdm, func(b *Behaviour) { b.Ports, b.Filtering = SequentialPorts, FilterEndpointIndependent }), nil},
		{with(apdm, func(b *Behaviour) { b.Hairpin = true }), []string{"hairpin: true with mapping: address-and-port-dependent and filtering: address-and-port-dependent"}},
		{with(apdm, func(b *Behaviour) { b.Hairpin, b.Filtering = true, FilterAddressDependent }), nil},
		{with(apdm, func(b *Behaviour) { b.Hairpin, b.Filtering, b.Pool = true, FilterAddressDependent, ArbitraryPool }), []string{"hairpin: true with mapping: address-and-port-dependent, filtering: address-dependent and pool: arbitrary is chance"}},
		{with(eim, func(b *Behaviour) { b.Hairpin, b.Filtering, b.Pool = true, FilterAddressDependent, ArbitraryPool }), nil},
		{with(eim, func(b *Behaviour) { b.PortBlock = 64 }), []string{"port_block: 64 with ports: preserve"}},
		{with(eim, func(b *Behaviour) { b.Ports, b.PortBlock = BlockPorts, 70000 }), []string{"port_block: 70000"}},
		{with(eim, func(b *Behaviour) {
			b.Unsolicited, b.Ports, b.Filtering, b.Hairpin, b.Refresh = ConfirmUnsolicited, RandomPorts, FilterAddressDependent, true, RefreshOutbound
		}), []string{
			"unsolicited: confirm with mapping: endpoint-independent and ports: random", "unsolicited: confirm with filtering: address-dependent",
			"unsolicited: confirm with hairpin", "unsolicited: confirm with refresh: outbound",
		}},
		{Behaviour{Mapping: MapAddressDependent}, nil},
		{Behaviour{Mapping: MapAddressDependent, Filtering: FilterAddressAndPortDependent, Unsolicited: ConfirmUnsolicited}, []string{"unsolicited: confirm with mapping: address-dependent"}},
		{with(eim, func(b *Behaviour) { b.TCPFiltering = FilterAddressDependent }), nil},
		{Behaviour{TCPFiltering: FilterAddressDependent, Unsolicited: RejectUnsolicited}, nil},
		{Behaviour{TCPFiltering: "some"}, []string{`tcp_filtering: "some"; expected one of endpoint-independent,`}},
		{with(eim, func(b *Behaviour) { b.Unsolicited, b.TCPFiltering = ConfirmUnsolicited, FilterEndpointIndependent }), []string{
			"unsolicited: confirm with tcp_filtering: endpoint-independent",
		}},
		{Behaviour{TCPIdle: -1, UDPRate: -1, PortBlock: 9}, []string{"tcp_idle: -1ns", "udp_rate: -1"}},
		{Behaviour{Allow: []Service{{Protocol: TCP, Port: 80}, {Protocol: TCP, Port: 80}, {Protocol: UDP}, {}}, Block: []Protocol{UDP}}, []string{
			"allow: tcp:80 twice", "allow: udp with block: udp", `allow: ""`,
		}},
	}
	for _, c := range cases {
		errs := c.b.Validate()
		ok := len(errs) == len(c.want)
		for i := 0; ok && i < len(errs); i++ {
			ok = strings.HasPrefix(errs[i].Error(), c.want[i])
		}
		if !ok {
			t.Errorf("%+v:\n%v\nwant errors that begin with %q", c.b, errors.Join(errs...), c.want)
		}
	}
}

// TCP is filtered strictly unless a behaviour says otherwise or filters nothing.
func TestFilteringOf(t *testing.T) {
	for _, c := range []struct {
		b        Behaviour
		udp, tcp Filtering
	}{
		{Behaviour{}, FilterEndpointIndependent, FilterEndpointIndependent},
		{Behaviour{TCPFiltering: FilterAddressDependent}, FilterEndpointIndependent, FilterAddressDependent},
		{Behaviour{Filtering: FilterAddressDependent}, FilterAddressDependent, FilterAddressAndPortDependent},
		{Behaviour{Mapping: MapEndpointIndependent}, FilterEndpointIndependent, FilterAddressAndPortDependent},
		{Behaviour{Mapping: MapEndpointIndependent, Filtering: FilterAddressDependent, TCPFiltering: FilterEndpointIndependent}, FilterAddressDependent, FilterEndpointIndependent},
	} {
		if udp, tcp := c.b.FilteringOf(UDP), c.b.FilteringOf(TCP); udp != c.udp || tcp != c.tcp {
			t.Errorf("%+v: UDP %s, TCP %s; want %s, %s", c.b, udp, tcp, c.udp, c.tcp)
		}
	}
}

func TestParseDeny(t *testing.T) {
	for in, want := range map[string]Deny{
		"login": {Host: "login"}, "login:tcp": {Host: "login", Protocol: TCP}, "sn1:udp:33033": {Host: "sn1", Protocol: UDP, Port: 33033},
	} {
		got, err := ParseDeny(in)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
		if got.String() != in {
			t.Errorf("%q came back as %q", in, got)
		}
	}
	for _, in := range []string{"", ":tcp", "login:", "login:sctp", "login:tcp:0", "login:tcp:65536", "login:tcp:80:", "login::80", "login:tcp:http"} {
		if d, err := ParseDeny(in); err == nil || !strings.Contains(err.Error(), "expected") {
			t.Errorf("%q: %+v, %v; want an error that says what was expected", in, d, err)
		}
	}
}

func TestChangedTo(t *testing.T) {
	home, _ := Preset("port-restricted")
	home.PortMapping = true
	if web, _ := Preset("http-connect"); home.ChangedTo(web).PortMapping || len(home.ChangedTo(web).Validate()) > 0 {
		t.Errorf("changed to http-connect: %+v, %v", home.ChangedTo(web), home.ChangedTo(web).Validate())
	}
	if firewall, _ := Preset("stateful-firewall"); !home.ChangedTo(firewall).PortMapping {
		t.Error("a box that goes on translating gives up its port mappings")
	}
	home.PortMapping = false
	blocked, _ := Preset("tcp-blocked")
	symmetric, _ := Preset("symmetric")
	got := home.ChangedTo(blocked)
	want := with(blocked, func(b *Behaviour) { b.Mapping = MapEndpointIndependent })
	if !reflect.DeepEqual(got, want) {
		t.Errorf("port-restricted changed to tcp-blocked: %+v, want %+v", got, want)
	}
	if errs := got.Validate(); len(errs) != 0 {
		t.Errorf("port-restricted changed to tcp-blocked: %v", errs)
	}
	if got := home.ChangedTo(symmetric); !reflect.DeepEqual(got, symmetric) {
		t.Errorf("port-restricted changed to symmetric: %+v, want %+v", got, symmetric)
	}
	if got := blocked.ChangedTo(home); !reflect.DeepEqual(got, home) {
		t.Errorf("tcp-blocked changed to port-restricted: %+v, want %+v", got, home)
	}
}
