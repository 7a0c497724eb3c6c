package middlebox

import (
	"fmt"
	"strings"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// TableName is the name of the one table, of family ip, that a box has.
const TableName = "gauntlet"

// Ruleset is what a box loads: kernel parameters, named counters, sets and
// chains. It is a value; nothing changes it once Rules has made it.
type Ruleset struct {
	parameters []parameter
	counters   []string
	sets       []set
	chains     []chain
}

// parameter is a kernel parameter that belongs to the behaviour.
type parameter struct {
	name, value string
}

// set is a set or map that packets fill. It has no size of its own: the kernel
// then lets packets add up to 65535 elements, and allocates memory as they come.
type set struct {
	name    string
	key     []nftables.SetDatatype
	typeof  []loader               // what the key is read from, if a part of it has no type of its own
	data    []nftables.SetDatatype // of a map
	timeout time.Duration
	comment string
}

// chain is a base chain, or without a hook one that others jump to.
type chain struct {
	name     string
	kind     nftables.ChainType
	hook     *nftables.ChainHook
	hookName string
	priority nftables.ChainPriority
	comment  string
	rules    []rule
}

// rule is a list of terms, of which the last decides.
type rule struct {
	terms   []term
	comment string
}

// Parameters are the kernel parameters that belong to the rules, by name, such
// as "net.netfilter.nf_conntrack_udp_timeout".
func (rs *Ruleset) Parameters() map[string]string {
	all := map[string]string{}
	for _, p := range rs.parameters {
		all[p.name] = p.value
	}
	return all
}

// exprs returns the rule as the kernel reads it.
func (r rule) exprs() (list []expr.Any) {
	for _, t := range r.terms {
		list = append(list, t.exprs...)
	}
	return list
}

// String returns the rules as nft(8) reads and prints them, with a comment
// above each rule and the kernel parameters above the table. Where ports are
// given out nft has no words for what the kernel can do: "let" and "hton" are
// not nft's.
func (rs *Ruleset) String() string {
	var b strings.Builder
	for _, p := range rs.parameters {
		fmt.Fprintf(&b, "# %s = %s\n", p.name, p.value)
	}
	fmt.Fprintf(&b, "table ip %s {\n", TableName)
	for _, c := range rs.counters {
		fmt.Fprintf(&b, "\tcounter %s { }\n", c)
	}
	for _, s := range rs.sets {
		fmt.Fprintf(&b, "\n\t# %s\n\t%s\n", s.comment, s)
	}
	for _, c := range rs.chains {
		fmt.Fprintf(&b, "\n\t# %s\n\tchain %s {\n", c.comment, c.name)
		if c.hook != nil {
			fmt.Fprintf(&b, "\t\ttype %s hook %s priority %d; policy accept;\n", c.kind, c.hookName, c.priority)
		}
		for _, r := range c.rules {
			texts := make([]string, len(r.terms))
			for i, t := range r.terms {
				texts[i] = t.text
			}
			fmt.Fprintf(&b, "\t\t# %s\n\t\t%s\n", r.comment, strings.Join(texts, " "))
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func (s set) String() string {
	kind, types := "set", "type "+join(s.key)
	switch {
	case len(s.typeof) > 0:
		types = "typeof " + names(s.typeof)
	case len(s.data) > 0:
		kind, types = "map", types+" : "+join(s.data)
	}
	return fmt.Sprintf("%s %s { %s; flags dynamic,timeout; timeout %s; }", kind, s.name, types, lifetime(s.timeout))
}

// lifetime writes a time as nft does, in seconds and milliseconds.
func lifetime(d time.Duration) string {
	text := fmt.Sprintf("%ds", d/time.Second)
	if rest := d % time.Second; rest > 0 {
		text += fmt.Sprintf("%dms", rest.Milliseconds())
	}
	return text
}

func join(types []nftables.SetDatatype) string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = t.Name
	}
	return strings.Join(names, " . ")
}
