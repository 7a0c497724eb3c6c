package compose

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"github.com/docker/docker/api/types/build"
)

// repository is the name of the images that are built here; a tag is the
// beginning of the binary's SHA-256.
const repository = "gauntlet"

// binaryPath is where the binary is in an image.
const binaryPath = "/gauntlet"

// dockerfile describes an image of nothing but one static binary. No base image
// is pulled: there may be no registry.
const dockerfile = `FROM scratch
COPY gauntlet ` + binaryPath + `
ENTRYPOINT ["` + binaryPath + `"]
`

// Image returns the image that holds a static binary and nothing else, built
// unless the engine has it already.
func (e *Engine) Image(ctx context.Context, binary string) (name string, err error) {
	sum, err := digest(binary)
	if err == nil {
		err = static(binary)
	}
	if err != nil {
		return "", fmt.Errorf("build the image: %w", err)
	}
	name = repository + ":" + sum[:12]
	if _, err := e.api.ImageInspect(ctx, name); err == nil {
		return name, nil
	} else if !errdefs.IsNotFound(err) {
		return "", explain("build the image", err)
	}
	return name, e.build(ctx, binary, name)
}

// build sends the engine a context of the binary and its Dockerfile.
func (e *Engine) build(ctx context.Context, binary, name string) (err error) {
	reader, writer := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := writeContext(writer, binary)
		writer.CloseWithError(err)
		written <- err
	}()
	defer func() {
		reader.Close() // ends the writer too
		if e := <-written; err == nil && e != nil && !errors.Is(e, io.ErrClosedPipe) {
			err = fmt.Errorf("build the image: %w", e)
		}
	}()
	answer, err := e.api.ImageBuild(ctx, reader, build.ImageBuildOptions{
		Version: build.BuilderV1, // BuildKit would need a session
		Tags:    []string{name}, NetworkMode: "none", Remove: true, ForceRemove: true,
		Labels: map[string]string{Label: "true"}, // of every run that has this binary
	})
	if err != nil {
		return explain("build the image", err)
	}
	defer answer.Body.Close()
	return explain("build the image", built(answer.Body))
}

// built reads what the builder says to its end, and returns its error.
func built(progress io.Reader) error {
	for d := json.NewDecoder(progress); ; {
		var message struct {
			Error string `json:"error"`
		}
		if err := d.Decode(&message); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if message.Error != "" {
			return errors.New(message.Error)
		}
	}
}

// writeContext writes the tar archive that an image is built from.
func writeContext(w io.Writer, binary string) error {
	t := tar.NewWriter(w)
	if err := t.WriteHeader(&tar.Header{Name: "Dockerfile", Mode: 0o644, Size: int64(len(dockerfile))}); err != nil {
		return err
	}
	if _, err := io.WriteString(t, dockerfile); err != nil {
		return err
	}
	f, err := os.Open(binary)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Name: "gauntlet", Mode: 0o755, Size: info.Size()}); err != nil {
		return err
	}
	if _, err := io.Copy(t, f); err != nil {
		return err
	}
	return t.Close()
}

// static checks that an executable needs no loader, which an image of nothing
// else would lack.
func static(file string) error {
	f, err := elf.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return &Unavailable{What: file + " is linked dynamically", Remedy: "build it with CGO_ENABLED=0, as make does"}
		}
	}
	return nil
}

// digest is the SHA-256 of a file, in hexadecimal.
func digest(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Has checks that the engine has an image, which is not pulled where it hasn't.
func (e *Engine) Has(ctx context.Context, image string) error {
	_, err := e.api.ImageInspect(ctx, image)
	if errdefs.IsNotFound(err) {
		return &Unavailable{
			What:   fmt.Sprintf("the Docker engine has no image %q", image),
			Remedy: "build, load or pull it first; gauntlet pulls nothing",
		}
	}
	return explain("look for image "+image, err)
}
