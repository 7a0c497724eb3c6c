package scenario

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"gauntlet/middlebox"
)

// Sizes of blocks of ports with which a box can be measured: fewer don't suffice
// for what is tried from one host, and more aren't told from ports chosen at
// random.
const (
	minPortBlock = 64
	maxPortBlock = 4096
)

// minUDPRate is the lowest limit with which a box is measured in seconds: the
// probe sends some 70 packets each way, no faster than that.
const minUDPRate = 10

// ignored finds what a file says of a behaviour without any effect: zeros that
// would stand for the default, and what means nothing beside the rest, which may
// be of a preset. A box that is changed has the topology's number of external
// addresses.
func (c *checker) ignored(path []string, preset string, o Overrides, b middlebox.Behaviour, addresses int) {
	own, _ := middlebox.Preset(preset)
	c.zeros(path, o, own)
	if n := o.PortBlock; n != nil && *n != 0 && (*n < minPortBlock || *n > maxPortBlock) {
		c.at(under(path, "port_block"), "%d ports; expected %d to %d: with fewer the box can't be measured, and more aren't told from ports chosen at random", *n, minPortBlock, maxPortBlock)
	}
	if n := o.UDPRate; n != nil && *n > 0 && *n < minUDPRate {
		c.at(under(path, "udp_rate"), "%d packets per second; expected at least %d, since the box is measured no faster than it lets packets through", *n, minUDPRate)
	}
	if o.Pool != nil && *o.Pool == middlebox.ArbitraryPool && addresses < 2 {
		c.at(under(path, "pool"), "arbitrary, and there is nothing to choose from; expected addresses: 2 or more of the box, or no pool")
	}
	for _, p := range b.Block {
		for _, key := range o.about(p) {
			c.at(under(path, key), "%s means nothing with block: %s; expected one of them", key, p)
		}
	}
	if b.Proxy != middlebox.NoProxy {
		keys := o.about(middlebox.UDP)
		for key, given := range map[string]bool{
			"hairpin": o.Hairpin != nil && *o.Hairpin, "ports": o.Ports != nil, "port_block": o.PortBlock != nil, "pool": o.Pool != nil,
		} {
			if given {
				keys = append(keys, key)
			}
		}
		for _, key := range keys {
			if key != "udp_rate" { // is refused with a proxy in any case
				c.at(under(path, key), "%s means nothing with proxy: %s, since nothing else gets through the box; expected one of them", key, b.Proxy)
			}
		}
	}
	c.redundant(path, preset, own.Deny, o.Deny)
}

// zeros finds numbers and times that are given and none.
func (c *checker) zeros(path []string, o Overrides, own middlebox.Behaviour) {
	for _, n := range []struct {
		key   string
		value *int
	}{{"port_block", o.PortBlock}, {"udp_rate", o.UDPRate}, {"addresses", o.Addresses}} {
		if n.value != nil && *n.value == 0 {
			c.at(under(path, n.key), "0; expected at least 1, or no %s", n.key)
		}
	}
	for _, t := range []struct {
		key   string
		value *time.Duration
	}{{"udp_timeout", o.UDPTimeout}, {"udp_unreplied_timeout", o.UDPUnreplied}, {"tcp_established", o.TCPEstablished}, {"tcp_transitory", o.TCPTransitory}, {"tcp_idle", o.TCPIdle}} {
		lifts := t.key == "tcp_idle" && own.TCPIdle > 0 // that of the preset
		if t.value != nil && *t.value == 0 && !lifts {
			c.at(under(path, t.key), "0s; expected at least 1s, or no %s", t.key)
		}
	}
}

// about are the keys that are given and say something of packets of a protocol
// alone, which a box that stops it never lets through.
func (o Overrides) about(p middlebox.Protocol) (keys []string) {
	add := func(key string, given bool) {
		if given {
			keys = append(keys, key)
		}
	}
	if p == middlebox.TCP {
		add("tcp_established", o.TCPEstablished != nil)
		add("tcp_transitory", o.TCPTransitory != nil)
		add("tcp_idle", o.TCPIdle != nil && *o.TCPIdle != 0)
		return keys
	}
	add("udp_timeout", o.UDPTimeout != nil)
	add("udp_unreplied_timeout", o.UDPUnreplied != nil)
	add("udp_rate", o.UDPRate != nil)
	add("refresh", o.Refresh != nil)
	return keys
}

// redundant finds what of a deny list is denied already.
func (c *checker) redundant(path []string, preset string, own []middlebox.Deny, deny []string) {
	for i, text := range deny {
		d, err := middlebox.ParseDeny(text)
		if err != nil {
			continue // is said elsewhere
		}
		by := ""
		if slices.ContainsFunc(own, func(o middlebox.Deny) bool { return o.Covers(d) }) {
			by = "preset " + preset
		}
		for j, text := range deny {
			if o, err := middlebox.ParseDeny(text); err == nil && j != i && o.Covers(d) && (o != d || j < i) {
				by = fmt.Sprintf("deny: %q", text)
			}
		}
		if by != "" {
			c.at(under(path, "deny", strconv.Itoa(i)), "%q is denied by %s already; expected it once", text, by)
		}
	}
}

// pooled checks that a box with several external addresses translates, now or
// once a step has changed it.
func (c *checker) pooled(path []string, name string, addresses *int) {
	if b, ok := c.now[name]; !ok || b.Translates() || addresses == nil || *addresses < 2 {
		return
	}
	for i := range c.s.Steps {
		for _, v := range c.s.Steps[i].Interventions() {
			if v.Change == nil || v.Change.Box != name {
				continue
			}
			if b, err := v.Change.Behaviour(); err != nil || b.Translates() {
				return
			}
		}
	}
	c.at(under(path, "addresses"), "%d addresses of a box that doesn't translate; expected a mapping, or no addresses", *addresses)
}
