// Package doctor tries what Gauntlet needs of the kernel, each by doing it, and
// says what lacks, what depends on it and what to do.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"gauntlet/lab/capture"
	"gauntlet/lab/gateway"
	"gauntlet/lab/internet"
	"gauntlet/lab/scenario"
	"gauntlet/middlebox"
	"gauntlet/topo/ns"
)

// Finding is one thing that was tried.
type Finding struct {
	Feature string
	// Missing says what went wrong, "" if all is well.
	Missing string
	// Needed is which checks depend on it.
	Needed string
	// Remedy is what to do about it.
	Remedy string
	// Vital is set where nothing runs without it.
	Vital bool
}

// Examine tries everything. It must run inside the sandbox.
func Examine(ctx context.Context) []Finding {
	var all []Finding
	try := func(f Finding, attempt func() error) {
		if err := attempt(); err != nil {
			f.Missing = err.Error()
		}
		all = append(all, f)
	}
	const every = "every check"
	try(Finding{Feature: "user, pid, net, mount and ipc namespaces", Needed: every, Vital: true}, func() error { return nil })
	try(Finding{Feature: "network namespaces, veth, bridge", Needed: every, Vital: true,
		Remedy: "load the modules veth and bridge"}, tryLinks)
	try(Finding{Feature: "nftables rules of every preset", Needed: "checks behind a box of a preset that can't be loaded",
		Remedy: "load the modules nf_tables, nft_ct, nft_masq, nft_log and nft_chain_nat"}, func() error {
		var errs []error
		for _, preset := range middlebox.Presets() {
			if err := tryPreset(ctx, preset); err != nil {
				errs = append(errs, fmt.Errorf("preset %s: %w", preset, err))
			}
		}
		return errors.Join(errs...)
	})
	for _, f := range middlebox.Features() {
		try(Finding{Feature: "nftables: " + f.Name, Needed: behind(f), Remedy: "load the module " + f.Module},
			func() error { return tryFeature(f) })
	}
	try(Finding{Feature: "connection tracking with accounting and times", Needed: "every check with a box on the way",
		Remedy: "load the module nf_conntrack"}, tryAccounting)
	try(Finding{Feature: "NFLOG", Needed: "every check with a box that drops", Remedy: "load the module nfnetlink_log"}, tryNFLOG)
	try(Finding{Feature: "packet capture (AF_PACKET)", Needed: every, Vital: true, Remedy: "load the module af_packet"}, tryCapture)
	try(Finding{Feature: "link rates (tbf)", Needed: "checks over a link with a rate", Remedy: "load the module sch_tbf"},
		func() error {
			return tryQdisc(&netlink.Tbf{QdiscAttrs: root(), Rate: 125_000, Limit: 30_000, Buffer: 3_000})
		})
	try(Finding{Feature: "link delay, jitter and loss (in user space)", Needed: "checks over a link with delay, jitter or loss",
		Remedy: "load the module af_packet"}, func() error { return tryLink(ctx) })
	for _, p := range gateway.Programs {
		try(Finding{Feature: p.Name, Needed: "checks behind a box with " + p.Does, Remedy: "install Debian's package " + p.Package},
			func() error { _, err := p.Find(); return err })
	}
	return all
}

// behind says which checks depend on a feature of nftables.
func behind(f middlebox.Feature) string {
	presets, settings := f.NeededBy()
	without := slices.DeleteFunc(middlebox.Presets(), func(name string) bool { return slices.Contains(presets, name) })
	text := strings.Join(presets, ", ")
	switch {
	case len(without) == 0:
		return "every check behind a box"
	case len(without) < len(presets):
		text = "any preset but " + strings.Join(without, ", ")
	}
	if len(settings) > 0 {
		with := "any box with " + strings.Join(settings, ", or ")
		if text == "" {
			text = with
		} else {
			text += "; " + with
		}
	}
	return "checks behind " + text
}

func tryFeature(f middlebox.Feature) error {
	h, err := ns.New()
	if err != nil {
		return err
	}
	defer h.Close()
	return f.Try(h)
}

// Forbidden examines why there is no sandbox, from outside of it.
func Forbidden(cause error) Finding {
	f := Finding{Feature: "user, pid, net, mount and ipc namespaces", Missing: cause.Error(), Needed: "every check", Vital: true,
		Remedy: "run gauntlet as root"}
	for _, setting := range []struct{ path, forbids, remedy string }{
		{"/proc/sys/user/max_user_namespaces", "0", "sysctl user.max_user_namespaces=10000"},
		{"/proc/sys/kernel/unprivileged_userns_clone", "0", "sysctl kernel.unprivileged_userns_clone=1"},
		{"/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1", "sysctl kernel.apparmor_restrict_unprivileged_userns=0"},
	} {
		if value, err := os.ReadFile(setting.path); err == nil && strings.TrimSpace(string(value)) == setting.forbids {
			f.Remedy += ", or, as root, " + setting.remedy
		}
	}
	return f
}

// inNamespace runs f in a namespace that is there for it alone.
func inNamespace(f func() error) error {
	h, err := ns.New()
	if err != nil {
		return err
	}
	defer h.Close()
	return h.Do(f)
}

func tryLinks() error {
	return inNamespace(func() error {
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}); err != nil {
			return fmt.Errorf("add a bridge: %w", err)
		}
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a"}, PeerName: "b"}); err != nil {
			return fmt.Errorf("add a veth pair: %w", err)
		}
		return nil
	})
}

// tryPreset stands the smallest topology with such a box up and waits until
// everything in it answers.
func tryPreset(ctx context.Context, preset string) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Second, errors.New("no answer within 5s"))
	defer cancel()
	i, err := internet.Up(ctx, scenario.Topology{
		Middleboxes: scenario.Named[scenario.Middlebox]{{Name: "box", Value: scenario.Middlebox{Preset: preset}}},
		Hosts: scenario.Named[scenario.Host]{
			{Name: "login"},
			{Name: "inside", Value: scenario.Host{Behind: "box"}},
		},
	})
	if err != nil {
		return err
	}
	defer i.Close()
	return i.Answer(ctx)
}

// tryLink has a host with a slow link ask its gateway.
func tryLink(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 5*time.Second, errors.New("no answer within 5s"))
	defer cancel()
	// Jitter keeps it from being netem's, which would leave the pump untried.
	slow := scenario.Shape{Delay: time.Millisecond, Jitter: time.Millisecond}
	i, err := internet.Up(ctx, scenario.Topology{Hosts: scenario.Named[scenario.Host]{
		{Name: "host", Value: scenario.Host{Link: &scenario.Link{Shape: slow}}},
	}})
	if err != nil {
		return err
	}
	defer i.Close()
	if err := i.Answer(ctx); err != nil {
		return err
	}
	if doubts := i.Doubts(); len(doubts) > 0 {
		return errors.New(strings.Join(doubts, " "))
	}
	return nil
}

func tryAccounting() error {
	return inNamespace(func() error {
		for _, name := range []string{"nf_conntrack_acct", "nf_conntrack_timestamp"} {
			if err := os.WriteFile("/proc/sys/net/netfilter/"+name, []byte("1"), 0); err != nil {
				return err
			}
		}
		return nil
	})
}

func tryNFLOG() error {
	h, err := ns.New()
	if err != nil {
		return err
	}
	defer h.Close()
	return capture.TryLog(h)
}

func tryCapture() error {
	return inNamespace(func() error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open a packet socket: %w", err)
		}
		defer unix.Close(fd)
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
			return fmt.Errorf("set TPACKET_V3: %w", err)
		}
		return nil
	})
}

func root() netlink.QdiscAttrs {
	return netlink.QdiscAttrs{Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
}

func tryQdisc(q netlink.Qdisc) error {
	return inNamespace(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		q.Attrs().LinkIndex = lo.Attrs().Index
		if err := netlink.QdiscAdd(q); err != nil {
			return fmt.Errorf("add a %s queue: %w", q.Type(), err)
		}
		return nil
	})
}
