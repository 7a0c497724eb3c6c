package main

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"gauntlet/compose"
	"gauntlet/compose/file"
	"gauntlet/lab/conduct"
	"gauntlet/lab/path"
	"gauntlet/lab/report"
	"gauntlet/nodes/control"
)

// How long nodes in containers may take: longer than in a lab, where they have
// the machine to themselves.
const (
	inServiceTimeout = time.Minute
	functionTimeout  = 20 * time.Second
)

func driveCommand() *cobra.Command {
	var length time.Duration
	c := &cobra.Command{
		Use:   "drive PROJECT login CLIENT… | search CALLER CALLEE | call CALLER CALLEE",
		Short: "Drive the nodes of a compose project",
		Long: `Drive the nodes of a compose project whose file gauntlet compose wrote, and print
what they claim. The first drive puts all nodes in service. Nothing is judged:
that is what gauntlet run is for.

  docker-compose -p lab -f compose/compose.yaml up -d
  gauntlet drive lab login alice bob
  gauntlet drive lab call alice bob --for 3s`,
		Args: cobra.MinimumNArgs(2),
		RunE: func(c *cobra.Command, args []string) error {
			if err := checkDrive(args[1], args[2:], length); err != nil {
				return status(report.ExitBadUsage, err)
			}
			d, err := newDriver(c.Context(), args[0])
			if err != nil {
				return status(report.ExitBadUsage, err)
			}
			defer d.close()
			if err := d.up(c.Context()); err != nil {
				return status(report.ExitFail, err)
			}
			return d.drive(c.Context(), args[1], args[2:], length)
		},
	}
	c.Flags().DurationVar(&length, "for", 3*time.Second, "how long a call lasts")
	return c
}

func checkDrive(function string, who []string, length time.Duration) error {
	if length <= 0 {
		return fmt.Errorf("--for %v: expected more than 0", length)
	}
	switch function {
	case control.MethodLogin:
		if len(who) == 0 {
			return errors.New("nobody logs in; expected login CLIENT…")
		}
	case control.MethodSearch, control.MethodCall:
		if len(who) != 2 || who[0] == who[1] {
			return fmt.Errorf("%s %s; expected %s CALLER CALLEE, two clients", function, strings.Join(who, " "), function)
		}
	default:
		return fmt.Errorf("unknown function %q; expected login, search or call", function)
	}
	return nil
}

// driver drives the nodes of one compose project.
type driver struct {
	engine   *compose.Engine
	members  []compose.Member
	clients  map[string]*control.Client
	accounts []control.Account
}

func newDriver(ctx context.Context, project string) (*driver, error) {
	engine, err := compose.Connect(ctx, project)
	if err != nil {
		return nil, err
	}
	d := &driver{engine: engine, clients: map[string]*control.Client{}}
	if d.members, err = engine.Project(ctx, project); err != nil {
		d.close()
		return nil, err
	}
	return d, nil
}

func (d *driver) close() {
	for _, c := range d.clients {
		c.Close()
	}
	d.engine.Close()
}

// up waits for the routers, attaches to all nodes and puts them in service;
// those that an earlier drive put in service answer as they did then.
func (d *driver) up(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, inServiceTimeout, fmt.Errorf("not in service after %v", inServiceTimeout))
	defer cancel()
	tag := rand.Text()
	var routers errgroup.Group
	var members []conduct.Member
	for _, m := range d.members {
		if m.Router {
			routers.Go(func() error { return d.engine.AwaitLine(ctx, m, file.RouterReady) })
			continue
		}
		a, err := d.engine.Attach(ctx, m)
		if err != nil {
			return errors.Join(err, routers.Wait())
		}
		d.clients[m.Name] = control.NewSharedClient(a, a, tag, nil)
		members = append(members, conduct.Member{
			PrepareParams: control.PrepareParams{
				Name: m.Name, Role: m.Role, Addresses: m.Addresses, Dir: compose.StateDir,
				Profile: m.Profile, Settings: json.RawMessage(m.Settings),
			},
			Public: m.Public,
		})
	}
	if err := routers.Wait(); err != nil {
		return err
	}
	d.makeAccounts()
	_, err := conduct.Up(ctx, members, d.accounts, func(ctx context.Context, name, method string, params, result any) error {
		if err := d.call(ctx, name, method, params, result); err != nil {
			return fmt.Errorf("%s: %s: %w", name, method, err)
		}
		return nil
	})
	var failed *control.Failed
	if errors.As(err, &failed) {
		err = fmt.Errorf("%w (a node that was restarted alone doesn't fit the others any more; docker-compose -p %s restart starts all of them anew)", err, d.engine.Run())
	}
	return err
}

// makeAccounts gives every client a password. It follows from the container of
// the node that keeps the accounts, so that the next drive knows it too.
func (d *driver) makeAccounts() {
	seed := ""
	for _, m := range d.members {
		if m.Role == "login" {
			seed = m.ID
		}
	}
	for _, m := range d.members {
		if m.Router || m.Role != "" && m.Role != "client" {
			continue
		}
		sum := sha256.Sum256([]byte(seed + " " + m.Name))
		d.accounts = append(d.accounts, control.Account{User: m.Name, Password: fmt.Sprintf("%x", sum[:8])})
	}
}

// call drives one node; whoever calls names it in the error.
func (d *driver) call(ctx context.Context, name, method string, params, result any) error {
	c, ok := d.clients[name]
	if !ok {
		return fmt.Errorf("no such node; expected one of %s", strings.Join(d.names(), ", "))
	}
	return c.Call(ctx, method, params, result)
}

func (d *driver) names() (names []string) {
	for _, a := range d.accounts {
		names = append(names, a.User)
	}
	return names
}

// drive drives a function and prints what the nodes claim of it.
func (d *driver) drive(ctx context.Context, function string, who []string, length time.Duration) error {
	for _, name := range who {
		if !slices.Contains(d.names(), name) {
			return status(report.ExitBadUsage, fmt.Errorf("unknown client %q; expected one of %s", name, strings.Join(d.names(), ", ")))
		}
	}
	limited := func(more time.Duration) (context.Context, context.CancelFunc) {
		limit := functionTimeout + more
		return context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %v", limit))
	}
	switch function {
	case control.MethodLogin:
		for _, name := range who {
			ctx, cancel := limited(0)
			i := slices.IndexFunc(d.accounts, func(a control.Account) bool { return a.User == name })
			r, err := conduct.Login(ctx, d.call, name, d.accounts[i].Password)
			cancel()
			if err != nil {
				return status(report.ExitFail, err)
			}
			fmt.Fprintf(stdout, "login %s: %s%s\n", name, claim(r.Path), finding(r.Middlebox))
		}
	case control.MethodSearch:
		ctx, cancel := limited(0)
		defer cancel()
		r, err := conduct.Search(ctx, d.call, who[0], who[1])
		if err != nil {
			return status(report.ExitFail, err)
		}
		fmt.Fprintf(stdout, "search %s %s: %s\n", who[0], who[1], claim(r.Path))
	default:
		ctx, cancel := limited(length)
		defer cancel()
		begun, end, err := conduct.Talk(ctx, d.call, who[0], who[1], length, functionTimeout)
		if err != nil {
			return status(report.ExitFail, err)
		}
		media := begun.Media
		if end.Media != nil {
			media = end.Media
		}
		fmt.Fprintf(stdout, "call %s %s, signalling: %s\n", who[0], who[1], claim(begun.Signalling))
		fmt.Fprintf(stdout, "call %s %s, media: %s; %d packets sent, %d received\n", who[0], who[1], claim(media), end.Sent, end.Received)
	}
	return nil
}

// claim puts a claimed path into words.
func claim(p *control.Path) string {
	if p == nil {
		return "claims no path"
	}
	r := path.Record{Path: p.Path, Relays: p.Relays, Carrying: p.Carrying, Hops: p.Hops}
	for _, leg := range p.Legs {
		r.Legs = append(r.Legs, path.Leg{From: leg.From, To: leg.To, Transport: leg.Transport})
	}
	return "claims " + report.Describe(r)
}

// finding puts what a client found of its box into words.
func finding(m *control.Middlebox) string {
	switch {
	case m == nil:
		return ""
	case !m.UDP:
		return "; finds no UDP"
	}
	return fmt.Sprintf("; finds mapping %s, filtering %s", m.Mapping, m.Filtering)
}
