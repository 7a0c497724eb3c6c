package media

import (
	"fmt"

	"github.com/pion/srtp/v3"
)

// exporterLabel is RFC 5764 §4.2's label. That document speaks of DTLS; the
// exporter of TLS 1.3 (RFC 8446 §7.5) is used in the same way here.
const exporterLabel = "EXTRACTOR-dtls_srtp"

// profile is the one SRTP protection profile in use.
const profile = srtp.ProtectionProfileAeadAes256Gcm

// Sizes of AEAD_AES_256_GCM's master key and salt in bytes, RFC 7714 §12.
const (
	keySize  = 32
	saltSize = 12
)

// Master is the SRTP master key and salt of one direction.
type Master struct {
	Key  [keySize]byte
	Salt [saltSize]byte
}

// Keys are the master keys of a call, one for each direction. Local protects
// what this end sends.
type Keys struct {
	Local, Remote Master
}

// Exporter is the exporter of a TLS connection, such as
// tls.ConnectionState.ExportKeyingMaterial.
type Exporter func(label string, context []byte, length int) ([]byte, error)

// Export derives a call's keys from its TLS connection, in the order of
// RFC 5764 §4.2: client's key, server's key, client's salt, server's salt.
// client says whether this end is the TLS client. It fails where the exporter
// does.
func Export(export Exporter, client bool) (Keys, error) {
	material, err := export(exporterLabel, nil, 2*(keySize+saltSize))
	if err != nil {
		return Keys{}, fmt.Errorf("export media keys: %w", err)
	}
	if len(material) != 2*(keySize+saltSize) {
		return Keys{}, fmt.Errorf("export media keys: %d bytes instead of %d", len(material), 2*(keySize+saltSize))
	}
	var ofClient, ofServer Master
	rest := material
	for _, part := range [][]byte{ofClient.Key[:], ofServer.Key[:], ofClient.Salt[:], ofServer.Salt[:]} {
		rest = rest[copy(part, rest):]
	}
	if client {
		return Keys{Local: ofClient, Remote: ofServer}, nil
	}
	return Keys{Local: ofServer, Remote: ofClient}, nil
}
