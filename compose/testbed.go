package compose

import (
	"context"
	_ "embed"
	"slices"
)

// Latest is the name of the image that holds the whole testbed.
const Latest = repository + ":latest"

// nobody is a user without rights, as docker run --user has it.
const nobody = "65534:65534"

// Need is one thing that the whole testbed needs of its container, and Docker
// doesn't give it by default.
type Need struct {
	Flag string // of docker run
	Why  string
}

// Needs are what a container must be given to make namespaces of its own in.
// No capability is among them, and no device: what the testbed does, it does
// in a user namespace that it makes.
func Needs() []Need {
	return []Need{
		{"--user=" + nobody, "root without capabilities can't map all of its ids into a user namespace; anybody else maps the own one"},
		{"--security-opt=seccomp=unconfined", "Docker's profile refuses clone and unshare with CLONE_NEWUSER, mount and setns; compose/seccomp.json is a narrower one that lets them pass"},
		{"--security-opt=systempaths=unconfined", "the kernel mounts a new proc in a user namespace only where no part of the visible one is covered"},
	}
}

// apparmor is needed where the engine confines containers by AppArmor.
var apparmor = Need{"--security-opt=apparmor=unconfined", "Docker's AppArmor profile, docker-default, refuses mount"}

// Spared are what the testbed can do without: flags of docker run that take
// away what a container has by default.
func Spared() []string {
	return []string{"--network=none", "--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges"}
}

// TaskCapabilities are what the whole testbed needs in a container of a Swarm or
// a Kubernetes cluster, which offer neither another seccomp profile nor an
// unmasked /proc everywhere, and so no user namespace to get them in: namespaces
// and mounts (SYS_ADMIN), interfaces and rules (NET_ADMIN), capture (NET_RAW),
// nodes with less than all this (SETPCAP), servers on ports 80 and 443
// (NET_BIND_SERVICE).
func TaskCapabilities() []string {
	return []string{"SYS_ADMIN", "NET_ADMIN", "NET_RAW", "SETPCAP", "NET_BIND_SERVICE"}
}

// Seccomp is a seccomp profile for the testbed: everything that Docker's own
// refuses to a container without capabilities is refused, but for what makes
// namespaces and mounts; and io_uring beside.
//
//go:embed seccomp.json
var Seccomp string

// Testbed builds the image of a binary and names it too. It returns its size
// in bytes and what a container of it needs on this engine.
func (e *Engine) Testbed(ctx context.Context, binary, name string) (size int64, needs []Need, err error) {
	image, err := e.Image(ctx, binary)
	if err != nil {
		return 0, nil, err
	}
	operation := "name the image " + name
	if err := e.api.ImageTag(ctx, image, name); err != nil {
		return 0, nil, explain(operation, err)
	}
	found, err := e.api.ImageInspect(ctx, name)
	if err != nil {
		return 0, nil, explain(operation, err)
	}
	info, err := e.api.Info(ctx)
	if err != nil {
		return 0, nil, explain(operation, err)
	}
	needs = Needs()
	if slices.ContainsFunc(info.SecurityOptions, func(o string) bool { return o == "name=apparmor" }) {
		needs = append(needs, apparmor)
	}
	return found.Size, needs, nil
}
