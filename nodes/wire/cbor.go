// Package wire turns the overlay's messages into bytes and back: strict CBOR
// (RFC 8949), the frames of a link, and sealed datagrams (HPKE, RFC 9180).
// It does no I/O.
package wire

import (
	"fmt"

	"github.com/fxamacker/cbor/v2"
)

// Bounds of a decoded message: elements of an array, pairs of a map, nesting.
const (
	maxElements = 1024
	maxPairs    = 128
	maxNesting  = 16
)

var (
	encoder = must(cbor.EncOptions{
		Sort:          cbor.SortCoreDeterministic,
		IndefLength:   cbor.IndefLengthForbidden,
		NilContainers: cbor.NilContainerAsEmpty,
		TagsMd:        cbor.TagsForbidden,
		Time:          cbor.TimeUnixMicro,
	}.EncMode())
	decoder = must(cbor.DecOptions{
		DupMapKey:         cbor.DupMapKeyEnforcedAPF,
		IndefLength:       cbor.IndefLengthForbidden,
		TagsMd:            cbor.TagsForbidden,
		MaxArrayElements:  maxElements,
		MaxMapPairs:       maxPairs,
		MaxNestedLevels:   maxNesting,
		ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode())
)

func must[T any](mode T, err error) T {
	if err != nil {
		panic("wire: " + err.Error()) // the options are constants
	}
	return mode
}

// Marshal encodes a message deterministically (RFC 8949 §4.2.1).
func Marshal(v any) ([]byte, error) {
	b, err := encoder.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return b, nil
}

// Unmarshal decodes exactly one message. Duplicate keys, unknown keys,
// indefinite lengths, tags and bytes after the message are errors.
func Unmarshal(b []byte, v any) error {
	if err := decoder.Unmarshal(b, v); err != nil {
		return fmt.Errorf("decode %T: %w", v, err)
	}
	return nil
}
