package membership

import (
	"bytes"
	"crypto/ecdh"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"gauntlet/nodes/identity"
)

// ID names a supernode: the first half of its certificate's hash. The
// authority chooses the serial number, so nobody can grind an ID that owns a
// certain name.
type ID [16]byte

func (id ID) String() string { return hex.EncodeToString(id[:]) }

// IDOf is the ID of the supernode with this certificate.
func IDOf(c *identity.Certificate) ID {
	hash := c.Hash()
	return ID(hash[:len(ID{})])
}

// Supernode is what others must know to reach one. It is a CBOR array on the
// wire, 60 bytes for IPv4.
type Supernode struct {
	_    struct{} `cbor:",toarray"`
	ID   ID
	Addr netip.AddrPort
	Seal []byte // X25519 public key
}

// SupernodeOf reads a supernode's certificate.
func SupernodeOf(c *identity.Certificate) Supernode {
	return Supernode{ID: IDOf(c), Addr: c.Addr, Seal: c.Seal.Bytes()}
}

// Key is the key that datagrams to the supernode are sealed to.
func (s Supernode) Key() (*ecdh.PublicKey, error) {
	k, err := ecdh.X25519().NewPublicKey(s.Seal)
	if err != nil {
		return nil, fmt.Errorf("seal key of supernode %s: %w", s.Addr, err)
	}
	return k, nil
}

// Normal is a user's name as it is hashed and compared: in lower case.
func Normal(name string) string { return strings.ToLower(name) }

// Responsible picks the n supernodes that keep the record of a name, best
// first, by rendezvous hashing (highest random weight, Thaler and Ravishankar
// 1998): each is weighed by the SHA-256 of name and ID, so that one that comes
// or goes moves only the names that it gains or held.
func Responsible(all []Supernode, name string, n int) []Supernode {
	type weighed struct {
		weight [32]byte
		node   Supernode
	}
	list := make([]weighed, len(all))
	key := append([]byte(Normal(name)), 0)
	for i, s := range all {
		list[i] = weighed{sha256.Sum256(append(key[:len(key):len(key)], s.ID[:]...)), s}
	}
	slices.SortFunc(list, func(a, b weighed) int { return bytes.Compare(b.weight[:], a.weight[:]) })
	picked := make([]Supernode, min(n, len(list)))
	for i := range picked {
		picked[i] = list[i].node
	}
	return picked
}

// Contains says whether a supernode with this ID is in the list.
func Contains(list []Supernode, id ID) bool {
	return slices.ContainsFunc(list, func(s Supernode) bool { return s.ID == id })
}
