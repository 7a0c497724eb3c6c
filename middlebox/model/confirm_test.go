package model

import (
	"testing"

	"pgregory.net/rapid"

	"gauntlet/middlebox"
)

// Boxes that confirm unsolicited packets, whose ports are the choice of connection
// tracking: a punch that comes after the peer's packet leaves from another port.
func TestKernelConfirm(t *testing.T) {
	r := newRig(t, true, 1)
	for _, m := range []middlebox.Mapping{middlebox.MapEndpointIndependent, middlebox.MapAddressAndPortDependent} {
		b := middlebox.Behaviour{Mapping: m, Filtering: middlebox.FilterAddressAndPortDependent, Unsolicited: middlebox.ConfirmUnsolicited}
		t.Run(name(b), func(t *testing.T) {
			t.Run("steps", func(t *testing.T) { agree(t, r, b, steps(r, b)) })
			t.Run("conversation", func(t *testing.T) { agree(t, r, b, conversation()) })
			t.Run("callers", func(t *testing.T) { agree(t, r, b, callers()) })
			t.Run("punches", func(t *testing.T) { agree(t, r, b, punches()) })
		})
	}
}

// punches draws a sequence of datagrams of two hosts inside that have one port,
// and of whom they send to, who may be first.
func punches() *rapid.Generator[[]step] {
	one := rapid.Custom(func(t *rapid.T) step {
		return step{
			kind:   rapid.SampledFrom([]kind{out, in, out, answer}).Draw(t, "kind"),
			near:   rapid.SampledFrom([]int{0, 0, len(insidePorts)}).Draw(t, "near"),
			far:    rapid.IntRange(0, 3).Draw(t, "far"),
			target: rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(t, "target"),
		}
	})
	return rapid.SliceOfN(one, 4, 20)
}
