package scenario

import (
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"gauntlet/lab/verdict"
	"gauntlet/middlebox"
	"gauntlet/topo"
)

// DefaultProfile is that of the seed.
const DefaultProfile = "nec2006"

// Bounds of an exchange's payload in bytes: enough to be told from greetings,
// and little enough for one line of the control protocol in base64.
const (
	minPayload = 64
	maxPayload = 512 << 10
)

// Roles of the reference overlay's nodes.
var roles = []string{"login", "update", "supernode", "client"}

// nameForm is what a step may be called.
var nameForm = regexp.MustCompile(`^[A-Za-z0-9._-]+$`)

var (
	paths      = []string{"direct", "reversed", "punched", "relayed", "failed", "any"}
	transports = []string{"udp", "tcp"}
	mappings   = []string{"none", "endpoint-independent", "address-dependent", "address-and-port-dependent"}
	profiles   = []string{"nec2006", "baset2004"}
)

// checker reports mistakes of meaning at the places of the file.
type checker struct {
	*decoder
	root *yaml.Node
	s    *Scenario
	// now is what each box does after the steps that are checked, if nothing is
	// wrong with that.
	now  map[string]middlebox.Behaviour
	plan *topo.Plan // nil if there is none
}

func (d *decoder) check(root *yaml.Node, s *Scenario) {
	c := &checker{decoder: d, root: root, s: s, now: map[string]middlebox.Behaviour{}}
	if len(s.Topology.Hosts) == 0 && len(d.mistakes) == 0 {
		c.at([]string{"topology"}, "no hosts; expected topology: {hosts: {NAME: {}}}")
	}
	c.word([]string{"profile"}, s.Profile, profiles)
	c.topology()
	c.nodes()
	c.steps()
}

func (c *checker) at(path []string, format string, args ...any) {
	c.wrong(at(c.root, path...), format, args...)
}

// word checks that a value, unless empty, is one of a few.
func (c *checker) word(path []string, value string, words []string) {
	if value != "" && !slices.Contains(words, value) {
		c.at(path, "%q; expected %s", value, list(words))
	}
}

func under(path []string, more ...string) []string { return append(slices.Clone(path), more...) }

func (c *checker) topology() {
	for _, e := range c.s.Topology.Middleboxes {
		path := []string{"topology", "middleboxes", e.Name}
		if b, ok := c.behaviour(path, e.Value.Preset, e.Value.Overrides, externals(e.Value)); ok {
			c.now[e.Name] = b
		}
		c.pooled(path, e.Name, e.Value.Addresses)
		if e.Value.Preset == "" && e.Value.Mapping == nil && e.Value.Filtering == nil && e.Value.TCPFiltering == nil && e.Value.Proxy == nil && len(e.Value.Block)+len(e.Value.Deny)+len(e.Value.Allow) == 0 {
			c.at(path, "a middlebox without behaviour; expected a preset (%s) or a mapping and a filtering", list(middlebox.Presets()))
		}
	}
	described := c.s.Topology.Description()
	problems := topo.Check(described)
	for _, p := range problems {
		c.at(under([]string{"topology"}, p.Path...), "%s", p.Message)
	}
	if len(problems) > 0 {
		return
	}
	c.plan, _ = topo.NewPlan(described) // fails for those problems alone
	for _, e := range c.s.Topology.Middleboxes {
		path := []string{"topology", "middleboxes", e.Name}
		c.denials(path, e.Name, e.Value.Preset, e.Value.Deny)
		c.capacity(path, e.Name)
	}
}

// externals is how many external addresses a box has.
func externals(m Middlebox) int {
	if m.Addresses == nil {
		return 1
	}
	return *m.Addresses
}

// behaviour checks a preset with what is set over it, of a box with so many
// external addresses, and says whether nothing is wrong with it.
func (c *checker) behaviour(path []string, preset string, o Overrides, addresses int) (_ middlebox.Behaviour, ok bool) {
	before := len(c.mistakes)
	if preset != "" {
		if _, ok := middlebox.Preset(preset); !ok {
			c.at(under(path, "preset"), "unknown preset %q; expected %s", preset, list(middlebox.Presets()))
			return middlebox.Behaviour{}, false
		}
	}
	for i, text := range o.Deny {
		d, err := middlebox.ParseDeny(text)
		if err != nil {
			c.at(under(path, "deny", strconv.Itoa(i)), "%v", err)
		} else if _, ok := c.s.Topology.Hosts.Get(d.Host); !ok {
			c.at(under(path, "deny", strconv.Itoa(i)), "unknown host %q; expected %s", d.Host, c.hosts())
		}
	}
	for i, text := range o.Allow {
		if _, err := middlebox.ParseService(text); err != nil {
			c.at(under(path, "allow", strconv.Itoa(i)), "%v", err)
		}
	}
	b, err := Behaviour(preset, o)
	if err != nil {
		return b, false // said above
	}
	c.ignored(path, preset, o, b, addresses)
	for _, err := range b.Validate() {
		c.at(path, "%v", err)
	}
	own, _ := middlebox.Preset(preset)
	for _, d := range own.Deny {
		if _, ok := c.s.Topology.Hosts.Get(d.Host); !ok {
			c.at(under(path, "preset"), "preset %s denies the host %q, which does not exist; expected a host of that name", preset, d.Host)
		}
	}
	return b, len(c.mistakes) == before
}

func (c *checker) hosts() string {
	names := c.s.Topology.Hosts.Names()
	if len(names) > 20 {
		names = append(names[:20:20], "…")
	}
	return list(names)
}

func (c *checker) nodes() {
	for _, e := range c.s.Nodes {
		path := []string{"nodes", e.Name}
		if _, ok := c.s.Topology.Hosts.Get(e.Name); !ok {
			c.at(path, "node %q has no host of its name; expected one of %s", e.Name, c.hosts())
		}
		switch {
		case len(e.Value.Exec) > 0 && e.Value.Image != "":
			c.at(under(path, "image"), "node %q is an executable and an image; expected one of them", e.Name)
		case e.Value.Foreign():
		case e.Value.Role == "":
			c.at(path, "node %q does nothing; expected a role (%s), exec: [COMMAND, …] or image: NAME", e.Name, list(roles))
		default:
			c.word(under(path, "role"), e.Value.Role, roles)
		}
	}
	if len(c.s.Steps) > 0 && len(c.s.Nodes) == 0 {
		c.at([]string{"steps"}, "steps without nodes; expected nodes: {NAME: {role: ROLE}}")
	}
	if len(c.s.Nodes) > 0 && len(c.s.Steps) == 0 {
		c.at([]string{"nodes"}, "nodes without steps; expected steps: [- login: [NAME, …]]")
	}
}

func (c *checker) steps() {
	for i := range c.s.Steps {
		st := &c.s.Steps[i]
		path := []string{"steps", strconv.Itoa(i)}
		kinds := st.kinds()
		if len(kinds) != 1 {
			c.at(path, "a step does one thing; expected exactly one of %s, found %d", list(actions), len(kinds))
			continue
		}
		c.action(under(path, kinds[0]), st)
		c.expect(path, kinds[0], st)
		switch {
		case st.Within == nil:
		case st.Action() != "":
			c.at(under(path, "within"), "a %s waits for nothing; expected no within", kinds[0])
		case *st.Within == 0:
			c.at(under(path, "within"), "0s; expected a time for the function, or no within")
		}
	}
}

// actions are the keys by which a step says what it does.
var actions = append([]string{"login", "search", "presence", "call", "conference", "exchange"}, interventions...)

func (st *Step) kinds() []string {
	var kinds []string
	for i, set := range []bool{st.Login != nil, st.Search != nil, st.Presence != nil, st.Call != nil, st.Conference != nil, st.Exchange != nil} {
		if set {
			kinds = append(kinds, actions[i])
		}
	}
	return append(kinds, st.Intervention.kinds()...)
}

func (c *checker) action(path []string, st *Step) {
	switch {
	case st.Login != nil:
		if len(st.Login) == 0 {
			c.at(path, "nobody logs in; expected login: [CLIENT, …]")
		}
		for i, name := range st.Login {
			c.client(under(path, strconv.Itoa(i)), name)
		}
		if n := len(c.s.Holding("login")); n != 1 {
			c.at(path, "login needs exactly one node of role login; found %d", n)
		}
	case st.Search != nil:
		c.pair(path, *st.Search)
	case st.Presence != nil:
		c.pair(path, *st.Presence)
	case st.Call != nil:
		c.pair(path, Pair{st.Call.Caller, st.Call.Callee})
		c.during(path, st.Call)
	case st.Exchange != nil:
		c.pair(path, Pair{st.Exchange.Caller, st.Exchange.Callee})
		if n := st.Exchange.Payload; n != 0 && (n < minPayload || n > maxPayload) {
			c.at(under(path, "payload"), "%d bytes; expected %d to %d", n, minPayload, maxPayload)
		}
		if st.Exchange.Function == "" {
			c.at(path, "exchange without a function; expected the name of a method of the node")
		}
	case st.Conference != nil:
		c.client(under(path, "starter"), st.Conference.Starter)
		if len(st.Conference.Members) == 0 {
			c.at(path, "a conference without members; expected members: [CLIENT, …]")
		}
		for i, name := range st.Conference.Members {
			c.client(under(path, "members", strconv.Itoa(i)), name)
		}
	default:
		c.intervention(path[:len(path)-1], &st.Intervention, nil)
	}
}

func (c *checker) box(path []string, name string) {
	if _, ok := c.s.Topology.Middleboxes.Get(name); !ok {
		c.at(under(path, "box"), "unknown middlebox %q; expected %s", name, list(c.s.Topology.Middleboxes.Names()))
	}
}

func (c *checker) pair(path []string, p Pair) {
	c.client(under(path, "caller"), p.Caller)
	c.client(under(path, "callee"), p.Callee)
	if p.Caller != "" && p.Caller == p.Callee {
		c.at(under(path, "callee"), "caller and callee are both %q; expected two clients", p.Caller)
	}
}

func (c *checker) client(path []string, name string) {
	n, ok := c.s.Nodes.Get(name)
	if !ok || !n.Foreign() && n.Role != "client" {
		names := c.s.Holding("client")
		for _, e := range c.s.Nodes {
			if e.Value.Foreign() {
				names = append(names, e.Name)
			}
		}
		if len(names) == 0 {
			names = []string{"a node of role client, and there is none"}
		}
		what := "unknown client " + strconv.Quote(name)
		if last := path[len(path)-1]; name == "" && slices.Contains([]string{"caller", "callee", "starter"}, last) {
			what = "no " + last
		}
		c.at(path, "%s; expected %s", what, list(names))
	}
}

func (c *checker) expect(path []string, kind string, st *Step) {
	if st.Action() != "" {
		if st.Expect != nil {
			c.at(under(path, "expect"), "nothing can be expected of a %s", kind)
		}
		if st.Name != "" {
			c.at(under(path, "name"), "step %s has no checks to name", kind)
		}
		return
	}
	if st.Name != "" && !nameForm.MatchString(st.Name) {
		c.at(under(path, "name"), "%q; expected letters, digits, and any of . _ -", st.Name)
	}
	e := st.Expect
	if e == nil {
		c.at(path, "step %s expects nothing; expected expect: {path: %s}", kind, strings.Join(paths, "|"))
		return
	}
	path = under(path, "expect")
	if kind == "call" {
		if e.Signalling == nil || e.Media == nil {
			c.at(path, "a call is judged in two parts; expected signalling: {path: …} and media: {path: …}")
		}
		if !reflect.ValueOf(e.Expectation).IsZero() {
			c.at(path, "a call's path belongs under signalling or media")
		}
		c.callParts(path, st.Call, e)
	} else {
		if e.Signalling != nil || e.Media != nil || e.After != nil {
			c.at(path, "signalling, media and after are parts of a call, not of %s", kind)
		}
		c.expectation(path, e.Expectation)
		c.noStream(path, e.Expectation, kind)
	}
	if e.Middlebox != nil {
		if kind != "login" {
			c.at(under(path, "middlebox"), "a client finds its middlebox at login, not at %s", kind)
		}
		c.word(under(path, "middlebox", "mapping"), e.Middlebox.Mapping, mappings)
		c.word(under(path, "middlebox", "filtering"), e.Middlebox.Filtering, mappings[1:])
	}
}

// callParts checks what is expected of the parts of a call.
func (c *checker) callParts(path []string, call *Call, e *Expect) {
	for part, x := range map[string]*verdict.Expectation{"signalling": e.Signalling, "media": e.Media, "after": e.After} {
		if x == nil {
			continue
		}
		c.expectation(under(path, part), *x)
		if part == "signalling" {
			c.noStream(under(path, part), *x, "signalling")
		}
		if part != "after" && x.Moved != nil {
			c.at(under(path, part, "moved"), "nothing has happened yet; expected moved under after")
		}
	}
	if len(call.During) > 0 && e.Media != nil && e.Media.Lost.Asked() {
		c.at(under(path, "media", "lost"), "what is under way when something happens isn't lost yet; expected lost under after")
	}
	switch {
	case len(call.During) > 0 && e.After == nil:
		c.at(path, "something happens during the call; expected after: {path: …} too")
	case len(call.During) == 0 && e.After != nil:
		c.at(under(path, "after"), "nothing happens during the call; expected call: {during: …} too")
	}
}

// noStream reports what can be expected of media alone.
func (c *checker) noStream(path []string, e verdict.Expectation, what string) {
	if e.Stream != (verdict.Stream{}) {
		c.at(path, "gap, lost, size, rate, first and moved are expected of a call's media, not of %s", what)
	}
}

func (c *checker) expectation(path []string, e verdict.Expectation) {
	before := len(c.mistakes)
	if e.Path == "" {
		c.at(path, "no path expected; expected path: %s", strings.Join(paths, "|"))
	}
	c.word(under(path, "path"), e.Path, paths)
	c.word(under(path, "transport"), e.Transport, transports)
	if len(c.mistakes) == before {
		for _, err := range e.Validate() {
			c.at(path, "%v", err)
		}
	}
	for i, f := range e.Flows {
		for end, name := range map[string]string{"from": f.From, "to": f.To} {
			_, host := c.s.Topology.Hosts.Get(name)
			if name != "" && !host && len(c.s.Holding(name)) == 0 {
				c.at(under(path, "flows", strconv.Itoa(i), end), "%q is neither a host nor a role of a node", name)
			}
		}
	}
}

// Holding returns the names of the nodes that have a role.
func (s *Scenario) Holding(role string) []string {
	var names []string
	for _, e := range s.Nodes {
		if e.Value.Role == role {
			names = append(names, e.Name)
		}
	}
	return names
}

// Kind is what the step does: login, search, …
func (st *Step) Kind() string { return st.kinds()[0] }

// Label is what the step's checks are called: its name, or what it does.
func (st *Step) Label() string {
	switch {
	case st.Name != "":
		return st.Name
	case st.Exchange != nil:
		return st.Exchange.Function
	}
	return st.Kind()
}

// Claimed returns the claims of a step: its own, or the file's.
func (s *Scenario) Claimed(st *Step) []string {
	if st.Claims != nil {
		return st.Claims
	}
	return s.Claims
}

// AllClaims returns the claims of the file and its steps, each once, in order.
func (s *Scenario) AllClaims() []string {
	var all []string
	for _, c := range s.Claims {
		if !slices.Contains(all, c) {
			all = append(all, c)
		}
	}
	for i := range s.Steps {
		for _, c := range s.Steps[i].Claims {
			if !slices.Contains(all, c) {
				all = append(all, c)
			}
		}
	}
	return all
}
