package tests

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gauntlet/lab/report"
	"gauntlet/lab/verdict"
)

// programs are those that scenarios in foreign need on the machine.
var programs = map[string]string{"proxy": "tinyproxy", "portmapping": "miniupnpd"}

// installed says whether the machine has a program, where Gauntlet looks for it.
func installed(program string) bool {
	for _, path := range []string{program, "/usr/sbin/" + program} {
		if _, err := exec.LookPath(path); err == nil {
			return true
		}
	}
	return false
}

// The path of what goes through a proxy can't be joined: the check is
// inconclusive and says so, while the function itself has worked.
func TestThroughProxy(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"python3", "tinyproxy"} {
		if !installed(program) {
			skip(t, program+" is not installed")
		}
	}
	text, err := os.ReadFile("foreign/proxy.yaml")
	if err != nil {
		t.Fatal(err)
	}
	node, err := os.ReadFile("foreign/connect.py")
	if err != nil {
		t.Fatal(err)
	}
	scenario := file(t, "tunnel.yaml", string(text)+`  - exchange: {function: tunnel, caller: alice, callee: bob, payload: 40003}
    expect: {path: direct}
`)
	if err := os.WriteFile(filepath.Join(filepath.Dir(scenario), "connect.py"), node, 0o644); err != nil {
		t.Fatal(err)
	}
	r, o := results(t, scenario)
	if o.status != report.ExitInconclusive || len(r.Checks) != 2 {
		t.Fatalf("exit status %d\n%s", o.status, o.stderr)
	}
	if c := r.Checks[0]; c.Verdict != verdict.Pass || !strings.Contains(strings.Join(c.Notes, "\n"), "at office by not-proxied") {
		t.Errorf("directly: %s: %s\n%s", c.Verdict, c.Reason, strings.Join(c.Notes, "\n"))
	}
	if c := r.Checks[1]; c.Verdict != verdict.Inconclusive || !regexp.MustCompile(`^39 KiB came to bob over .* its sender could not be told$`).MatchString(c.Reason) {
		t.Errorf("through the proxy: %s: %s", c.Verdict, c.Reason)
	}
}

const programsLab = `topology:
  middleboxes:
    corp: {preset: http-connect}
    site: {preset: port-restricted, behind: corp}
    home: {preset: port-restricted, port_mapping: true}
  hosts: {server: {}, alice: {behind: corp}, carol: {behind: site}, bob: {behind: home}}
`

// A command on a host is told of the proxy before it, and of nothing else.
func TestProxyEnvironment(t *testing.T) {
	t.Parallel()
	if !installed("tinyproxy") {
		skip(t, "tinyproxy is not installed")
	}
	lab := file(t, "lab.yaml", programsLab)
	for host, proxy := range map[string]string{"alice": "corp", "carol": "corp", "bob": ""} {
		o := do(t, "exec", lab, host, "--", "sh", "-c", `echo "$http_proxy $https_proxy"; grep -w "corp$" /etc/hosts`)
		lines := strings.Split(o.stdout, "\n")
		want := os.Getenv("http_proxy") + " " + os.Getenv("https_proxy")
		if proxy != "" && len(lines) > 1 {
			address, _, _ := strings.Cut(lines[1], " ")
			want = "http://" + address + ":8888 http://" + address + ":8888"
		}
		if o.status != 0 || lines[0] != want {
			t.Errorf("%s: exit status %d, proxies %q, want %q\n%s", host, o.status, lines[0], want, o.stderr)
		}
	}
}

// Somebody else's client finds the router by multicast and has it map a port.
func TestPortMappingClient(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"miniupnpd", "upnpc"} {
		if !installed(program) {
			skip(t, program+" is not installed")
		}
	}
	lab := file(t, "lab.yaml", programsLab)
	// -i: the external address is none of the internet's, which the client would
	// take for no connection.
	var o output
	for range 3 { // the client asks once, and waits for 2 s, which a busy machine may take
		o = do(t, "exec", lab, "bob", "--", "upnpc", "-i", "-a", "@", "6001", "6001", "UDP", "100")
		if !strings.Contains(o.stdout, "No IGD UPnP Device found") {
			break
		}
	}
	if o.status != 0 || !regexp.MustCompile(`external 198\.18\.\S+:6001 UDP is redirected to internal 10\.\S+:6001`).MatchString(o.stdout) {
		t.Errorf("exit status %d\n%s%s", o.status, o.stdout, o.stderr)
	}
}
