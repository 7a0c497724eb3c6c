package role

import (
	"crypto/ecdh"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"gauntlet/nodes/control"
	"gauntlet/nodes/identity"
)

// Ports. A supernode listens on the bootstrap port of 2004 (papers.md §2.13)
// and, for clients whose firewall lets nothing else out, on 80 and 443. Its
// second port for STUN is the one after the first.
const (
	overlayPort = 33033
	updatePort  = 80
)

// supernodePorts are the TCP ports of a supernode; the first is the one that
// its certificate names.
var supernodePorts = []uint16{overlayPort, 80, 443}

// loginPublic is what a login server makes public at prepare.
type loginPublic struct {
	Address netip.AddrPort  `json:"address"`
	Keys    identity.Public `json:"keys"`
}

// updatePublic is what an update server makes public.
type updatePublic struct {
	Address netip.AddrPort `json:"address"`
	URL     string         `json:"url"`
}

// supernodePublic is what a supernode makes public.
type supernodePublic struct {
	Address   netip.AddrPort `json:"address"`
	Sign      []byte         `json:"sign"`           // Ed25519 public key
	Seal      []byte         `json:"seal"`           // X25519 public key
	Alternate uint16         `json:"stun_alternate"` // UDP port
}

// peers are the nodes of the scenario that a node of this overlay makes use of.
type peers struct {
	login      *loginPublic
	roots      identity.Roots
	update     *updatePublic
	supernodes []defaultSupernode
}

type defaultSupernode struct {
	name string
	addr netip.AddrPort
	sign ed25519.PublicKey
	seal *ecdh.PublicKey
}

// readPeers reads what the peers made public. Nodes of other overlays are
// passed over: only the four roles are looked at.
func readPeers(list []control.Peer) (*peers, error) {
	p := new(peers)
	for _, peer := range list {
		var err error
		switch peer.Role {
		case RoleLogin:
			err = p.readLogin(peer)
		case RoleUpdate:
			p.update = new(updatePublic)
			err = json.Unmarshal(peer.Public, p.update)
		case RoleSupernode:
			err = p.readSupernode(peer)
		}
		if err != nil {
			return nil, fmt.Errorf("what %s made public: %w", peer.Name, err)
		}
	}
	return p, nil
}

func (p *peers) readLogin(peer control.Peer) error {
	if p.login != nil {
		return errors.New("there is a login server already")
	}
	p.login = new(loginPublic)
	if err := json.Unmarshal(peer.Public, p.login); err != nil {
		return err
	}
	var err error
	p.roots, err = p.login.Keys.Roots()
	return err
}

func (p *peers) readSupernode(peer control.Peer) error {
	var s supernodePublic
	if err := json.Unmarshal(peer.Public, &s); err != nil {
		return err
	}
	if len(s.Sign) != ed25519.PublicKeySize {
		return fmt.Errorf("signing key of %d bytes", len(s.Sign))
	}
	seal, err := ecdh.X25519().NewPublicKey(s.Seal)
	if err != nil {
		return fmt.Errorf("seal key: %w", err)
	}
	if !s.Address.IsValid() || s.Address.Port() == 0 {
		return fmt.Errorf("address %s", s.Address)
	}
	p.supernodes = append(p.supernodes, defaultSupernode{peer.Name, s.Address, s.Sign, seal})
	return nil
}
