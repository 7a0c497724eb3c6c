package topo

import (
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// offloads are the commands of ethtool(8) that switch off what would let a
// capture see packets that were never on a wire: checksums left to a network
// card that doesn't exist, and TCP segments of up to 64 kB. Scatter-gather goes
// last, since the kernel drops segmentation with it anyway.
var offloads = []struct {
	name string
	set  uint32
}{
	{"generic receive offload", unix.ETHTOOL_SGRO},
	{"generic segmentation offload", unix.ETHTOOL_SGSO},
	{"TCP segmentation offload", unix.ETHTOOL_STSO},
	{"transmit checksum offload", unix.ETHTOOL_STXCSUM},
	{"scatter-gather", unix.ETHTOOL_SSG},
}

// ethtoolValue is the kernel's struct ethtool_value.
type ethtoolValue struct {
	cmd, data uint32
}

// disableOffloads switches all offloads of an interface off. The socket fd,
// of any kind, decides the namespace.
func disableOffloads(fd int, name string) error {
	for _, o := range offloads {
		if _, err := ethtool(fd, name, o.set, 0); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("switch off %s of %s: %w", o.name, name, err)
		}
	}
	return nil
}

// settle has the kernel take notice now of what happened to an interface's
// carrier, which it otherwise does a little later on a thread of its own.
// Until then a veth has no queue to send through, and a bridge port doesn't
// forward.
func settle(fd int, name string) error {
	if _, err := ethtool(fd, name, unix.ETHTOOL_GLINK, 0); err != nil {
		return fmt.Errorf("settle carrier of %s: %w", name, err)
	}
	return nil
}

// ethtool runs one command that takes and returns one number.
func ethtool(fd int, name string, cmd, data uint32) (uint32, error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return 0, err
	}
	value := ethtoolValue{cmd, data}
	// The kernel's struct ifreq is the name and a union, here a pointer.
	raw := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		rest [16]byte
	}{data: unsafe.Pointer(&value)}
	copy(raw.name[:], request.Name())
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&raw))); errno != 0 {
		return 0, errno
	}
	return value.data, nil
}
