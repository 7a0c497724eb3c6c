package evidence

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// Bounds on what a folder may make the reader hold.
const (
	maxDocument = 64 << 20 // a JSON file, or one line of one
	maxPackets  = 20 << 20 // packets of the capture that are kept, 16 bytes each
)

// Evidence is what was recorded of one scenario, joined into flows.
type Evidence struct {
	World     World
	Exchanges []Exchange
	// Losses is what the recording missed. Reading adds to its problems what
	// is missing from the folder.
	Losses Losses
	// Orphans are dropped packets that belong to no flow seen at a host.
	Orphans []Drop

	instances []*instance // sorted by first packet
	bindings  map[outer][]Binding
}

// Read reads a folder and joins it. A folder whose recording did not end is
// read as far as it goes, and its losses say so. The same folder always gives
// the same evidence.
func Read(dir string) (*Evidence, error) {
	ev := &Evidence{}
	if err := readDocument(dir, WorldFile, &ev.World); err != nil {
		return nil, err
	}
	if err := ev.World.check(); err != nil {
		return nil, fmt.Errorf("read %s: %w", WorldFile, err)
	}
	err := readDocument(dir, LossesFile, &ev.Losses)
	if errors.Is(err, os.ErrNotExist) {
		ev.Losses.Problems = append(ev.Losses.Problems, "the recording did not end: "+LossesFile+" is missing")
	} else if err != nil {
		return nil, err
	}
	err = readLines(dir, ExchangesFile, ev, func(e Exchange) error {
		ev.Exchanges = append(ev.Exchanges, e)
		return nil
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	join := newJoiner(&ev.World)
	has := stored{packets: map[string]uint64{}, drops: map[string]uint64{}, dumps: map[string]uint64{}}
	err = readLines(dir, ConntrackFile, ev, func(d Dump) error {
		has.dumps[d.Router]++
		join.dump(d)
		return nil
	})
	if err != nil {
		return nil, err
	}
	if err := readPackets(dir, ev, join, has.packets); err != nil {
		return nil, err
	}
	ev.instances, ev.bindings = join.instances(), join.bindings
	err = readLines(dir, DropsFile, ev, func(d DroppedPacket) error {
		has.drops[d.Router]++
		if orphan, ok := join.drop(d); ok {
			ev.Orphans = append(ev.Orphans, orphan)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	ev.Losses.Problems = append(ev.Losses.Problems, ev.Losses.less(has)...)
	sortDrops(ev.Orphans)
	for _, i := range ev.instances {
		sortDrops(i.drops)
	}
	return ev, nil
}

// readPackets gives the joiner the packets of the capture.
func readPackets(dir string, ev *Evidence, join *joiner, count map[string]uint64) error {
	file, err := os.Open(filepath.Join(dir, CaptureFile))
	if err != nil {
		return fmt.Errorf("read evidence: %w", err)
	}
	defer file.Close()
	err = ReadCapture(file, func(p CapturedPacket) error {
		if join.kept == maxPackets {
			return fmt.Errorf("more than %d packets", maxPackets)
		}
		count[p.Tap]++
		join.packet(p)
		return nil
	})
	if errors.Is(err, io.ErrUnexpectedEOF) {
		ev.Losses.Problems = append(ev.Losses.Problems, CaptureFile+" ends inside a packet")
		return nil
	}
	return err
}

// readDocument decodes a file of one JSON value. Unknown keys are errors.
func readDocument(dir, name string, into any) error {
	file, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("read evidence: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxDocument+1))
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if len(data) > maxDocument {
		return fmt.Errorf("read %s: longer than %d bytes", name, maxDocument)
	}
	if err := decode(data, into); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// readLines decodes a file of one JSON value a line. A last line without its
// end is a loss and not an error, since the recording may have been cut.
func readLines[T any](dir, name string, ev *Evidence, f func(T) error) error {
	file, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return fmt.Errorf("read evidence: %w", err)
	}
	defer file.Close()
	in := bufio.NewScanner(file)
	in.Buffer(make([]byte, 64<<10), maxDocument)
	in.Split(wholeLines)
	for number := 1; in.Scan(); number++ {
		line := in.Bytes()
		if len(line) == 0 || line[len(line)-1] != '\n' {
			ev.Losses.Problems = append(ev.Losses.Problems, name+" ends inside a line")
			break
		}
		var value T
		err := decode(line, &value)
		if err == nil {
			err = f(value)
		}
		if err != nil {
			return fmt.Errorf("read %s line %d: %w", name, number, err)
		}
	}
	if err := in.Err(); err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	return nil
}

// wholeLines is bufio.ScanLines, but a line keeps its end.
func wholeLines(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i+1], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

func decode(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("more than one value")
	}
	return nil
}
