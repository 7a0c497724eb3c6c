package evidence

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// WriteWorld writes the world of a folder.
func WriteWorld(dir string, w World) error { return writeDocument(dir, WorldFile, w) }

// WriteLosses writes the losses of a folder.
func WriteLosses(dir string, l Losses) error { return writeDocument(dir, LossesFile, l) }

// WriteExchanges writes all exchanges of a folder.
func WriteExchanges(dir string, list []Exchange) error { return writeLines(dir, ExchangesFile, list) }

// WriteDumps writes all table dumps of a folder, for a recording that was not
// made by package capture.
func WriteDumps(dir string, list []Dump) error { return writeLines(dir, ConntrackFile, list) }

// WriteDrops writes all dropped packets of a folder, as WriteDumps does.
func WriteDrops(dir string, list []DroppedPacket) error { return writeLines(dir, DropsFile, list) }

func writeDocument(dir, name string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return writeFile(dir, name, append(data, '\n'))
}

func writeLines[T any](dir, name string, list []T) error {
	var all bytes.Buffer
	encoder := json.NewEncoder(&all)
	for _, value := range list {
		if err := encoder.Encode(value); err != nil {
			return fmt.Errorf("write %s: %w", name, err)
		}
	}
	return writeFile(dir, name, all.Bytes())
}

func writeFile(dir, name string, data []byte) error {
	if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
		return fmt.Errorf("write evidence: %w", err)
	}
	return nil
}
