package reach

import (
	"bytes"
	"testing"

	"gauntlet/nodes/directory"
)

func TestPreface(t *testing.T) {
	session := directory.NewSession()
	b := preface(prefaceCallee, session)
	if len(b) != prefaceSize {
		t.Errorf("%d bytes", len(b))
	}
	kind, got, err := readPreface(bytes.NewReader(b))
	if err != nil || kind != prefaceCallee || got != session {
		t.Errorf("read %d %x, %v", kind, got, err)
	}
	for name, bad := range map[string][]byte{"cut": b[:10], "of an unknown kind": append([]byte{9}, b[1:]...)} {
		if _, _, err := readPreface(bytes.NewReader(bad)); err == nil {
			t.Errorf("a preface %s is taken", name)
		}
	}
}

func FuzzPreface(f *testing.F) {
	f.Add(preface(prefaceCaller, directory.NewSession()))
	f.Fuzz(func(t *testing.T, data []byte) {
		kind, session, err := readPreface(bytes.NewReader(data))
		if err == nil && !bytes.Equal(preface(kind, session), data[:prefaceSize]) {
			t.Errorf("%x read as %d %x", data, kind, session)
		}
	})
}
