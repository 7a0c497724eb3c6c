package callsetup

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/stun/v3"
)

// agentVariable makes this test binary an ICE agent; its value is the address of
// the STUN server. With eagerVariable set too it takes the first pair that works.
const (
	agentVariable = "GAUNTLET_TEST_ICE_AGENT"
	eagerVariable = "GAUNTLET_TEST_ICE_EAGER"
)

// checkEvery is how often the reference overlay checks, too.
const checkEvery = 20 * time.Millisecond

// signal is a line between an agent and the one that started it, either way.
type signal struct {
	// Accept has the agent begin: to gather, and to answer where it is the callee.
	Accept bool `json:"accept,omitempty"`
	// Ufrag and Password are an agent's credentials, RFC 8445 section 5.3.
	Ufrag    string `json:"ufrag,omitempty"`
	Password string `json:"password,omitempty"`
	// Candidate is one candidate, as in SDP. Gathered says that there are no more.
	Candidate string `json:"candidate,omitempty"`
	Gathered  bool   `json:"gathered,omitempty"`
	// Caller says which of the two the agent is, with Accept.
	Caller bool `json:"caller,omitempty"`
	// Got says that a datagram of the other's has come.
	Got bool `json:"got,omitempty"`
}

func TestMain(m *testing.M) {
	if server := os.Getenv(agentVariable); server != "" {
		if err := agent(server); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// agent is one end of a call by pion/ice, with its defaults but for what it is
// told to gather: host and server-reflexive candidates over UDP and IPv4, and,
// if eager, for its waits: none for better candidates, and checkEvery between
// checks. It ends with its stdin.
func agent(server string) error {
	uri, err := stun.ParseURI("stun:" + server)
	if err != nil {
		return err
	}
	options := []ice.AgentOption{
		ice.WithUrls([]*stun.URI{uri}),
		ice.WithNetworkTypes([]ice.NetworkType{ice.NetworkTypeUDP4}),
		ice.WithCandidateTypes([]ice.CandidateType{ice.CandidateTypeHost, ice.CandidateTypeServerReflexive}),
	}
	if os.Getenv(eagerVariable) != "" {
		options = append(options, ice.WithSrflxAcceptanceMinWait(0), ice.WithPrflxAcceptanceMinWait(0),
			ice.WithHostAcceptanceMinWait(0), ice.WithCheckInterval(checkEvery))
	}
	a, err := ice.NewAgentWithOptions(options...)
	if err != nil {
		return err
	}
	defer a.Close()
	var mu sync.Mutex
	out := json.NewEncoder(os.Stdout)
	say := func(s signal) {
		mu.Lock()
		defer mu.Unlock()
		if err := out.Encode(s); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}
	if err := a.OnCandidate(func(c ice.Candidate) {
		if c == nil {
			say(signal{Gathered: true})
			return
		}
		say(signal{Candidate: c.Marshal()})
	}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var talking sync.WaitGroup
	defer talking.Wait()
	defer cancel()
	caller := false
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		var s signal
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			return err
		}
		switch {
		case s.Accept:
			caller = s.Caller
			ufrag, password, err := a.GetLocalUserCredentials()
			if err != nil {
				return err
			}
			say(signal{Ufrag: ufrag, Password: password})
			if err := a.GatherCandidates(); err != nil {
				return err
			}
		case s.Ufrag != "":
			talking.Go(func() {
				if err := talk(ctx, a, caller, s, say); err != nil && ctx.Err() == nil {
					fmt.Fprintln(os.Stderr, err)
				}
			})
		case s.Candidate != "":
			c, err := ice.UnmarshalCandidate(s.Candidate)
			if err != nil {
				return err
			}
			if err := a.AddRemoteCandidate(c); err != nil {
				return err
			}
		}
	}
	return lines.Err()
}

// talk connects, sends a datagram every 5 ms, and says when the other's first
// has come.
func talk(ctx context.Context, a *ice.Agent, caller bool, other signal, say func(signal)) error {
	connect := a.Accept
	if caller {
		connect = a.Dial
	}
	conn, err := connect(ctx, other.Ufrag, other.Password)
	if err != nil {
		return err
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		buffer := make([]byte, 1500)
		if _, err := conn.Read(buffer); err == nil {
			say(signal{Got: true})
		}
	})
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for err == nil && ctx.Err() == nil {
		_, err = conn.Write(make([]byte, 67))
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	conn.Close()
	reading.Wait()
	return err
}
