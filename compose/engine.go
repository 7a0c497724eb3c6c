package compose

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/docker/docker/client"
)

// oldestAPI is the version of the Docker Engine API that everything here is
// offered by: 1.41, which came with engine 20.10 and has Swarm jobs.
const oldestAPI = "1.41"

// answerTimeout is how long the engine may take to answer at first.
const answerTimeout = 10 * time.Second

// Engine is a connection to the Docker engine of this machine.
type Engine struct {
	// Proc is the machine's /proc, by which a container's network namespace is
	// found, for a process that has another one in its place; else nil.
	Proc *os.File

	api *client.Client
	way *patient
	run string

	// alive is what Alive returns, and lose ends it with the reason.
	alive context.Context
	lose  context.CancelCauseFunc
}

// Unavailable says in a sentence why containers can't be had here, and what to
// do.
type Unavailable struct {
	What   string
	Remedy string
	Cause  error
}

func (u *Unavailable) Error() string {
	text := u.What
	if u.Cause != nil {
		text += fmt.Sprintf(" (%v)", u.Cause)
	}
	if u.Remedy != "" {
		text += ": " + u.Remedy
	}
	return text
}

func (u *Unavailable) Unwrap() error { return u.Cause }

// Connect reaches the engine that DOCKER_HOST names, by default the one of this
// machine. Whatever is made through it carries the run's name. What the engine is
// asked for ends with ctx. The error is an *Unavailable.
func Connect(ctx context.Context, run string) (*Engine, error) {
	way := &patient{patience: requestTimeout}
	api, err := client.NewClientWithOpts(client.FromEnv, client.WithAPIVersionNegotiation(), way.bounded)
	if err != nil {
		return nil, &Unavailable{What: "the Docker engine can't be reached", Remedy: "check DOCKER_HOST", Cause: err}
	}
	e := &Engine{api: api, way: way, run: run}
	e.alive, e.lose = context.WithCancelCause(ctx)
	if err := e.check(ctx); err != nil {
		return nil, errors.Join(err, api.Close())
	}
	return e, nil
}

// check asks the engine for its version.
func (e *Engine) check(ctx context.Context) error {
	host := e.api.DaemonHost()
	if !strings.HasPrefix(host, "unix://") {
		return &Unavailable{
			What:   fmt.Sprintf("the Docker engine at %s is not this machine's", host),
			Remedy: "containers are given network interfaces of this machine; let DOCKER_HOST name a unix:// socket",
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, fmt.Errorf("no answer in %v", answerTimeout))
	defer cancel()
	version, err := e.api.ServerVersion(ctx)
	switch {
	case errors.Is(err, os.ErrPermission), errors.Is(err, syscall.EACCES), err != nil && strings.Contains(err.Error(), "permission denied"):
		return &Unavailable{
			What:   fmt.Sprintf("this user may not use the Docker engine at %s", host),
			Remedy: "run gauntlet as root",
		}
	case err != nil:
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return &Unavailable{
			What:   fmt.Sprintf("no Docker engine answers at %s", host),
			Remedy: "start it",
			Cause:  err,
		}
	}
	if older(version.APIVersion, oldestAPI) {
		return &Unavailable{
			What:   fmt.Sprintf("the Docker engine at %s is too old: version %s, API %s", host, version.Version, version.APIVersion),
			Remedy: "API " + oldestAPI + " (engine 20.10) or newer is needed",
		}
	}
	return nil
}

// older compares versions of the API, "1.9" before "1.41".
func older(a, b string) bool {
	var aMajor, aMinor, bMajor, bMinor int
	if n, _ := fmt.Sscanf(a, "%d.%d", &aMajor, &aMinor); n != 2 {
		return true
	}
	fmt.Sscanf(b, "%d.%d", &bMajor, &bMinor)
	return aMajor < bMajor || aMajor == bMajor && aMinor < bMinor
}

// Close gives the connection up. Containers stay, see [Engine.Clean].
func (e *Engine) Close() error {
	e.lose(nil)
	e.way.CloseIdleConnections()
	return e.api.Close()
}

// Run is the name of the run that this connection is for.
func (e *Engine) Run() string { return e.run }

// Alive returns the context that the engine was connected in, which ends, too, once
// no container can be had any more: the connection is lost, the disk full, the image
// gone. Its cause is then an *Unavailable. It has ended by the time that anything
// learns of the failure.
func (e *Engine) Alive() context.Context { return e.alive }

// explain is [explain] of an error that also ends Alive where it says that no
// container can be had any more. The first such error is the reason. What the end
// of ctx broke off says nothing of the engine.
func (e *Engine) explain(ctx context.Context, operation string, err error) error {
	explained := explain(operation, err)
	var unavailable *Unavailable
	switch {
	case ctx.Err() != nil:
	case broken(err):
		e.lost(err)
	case errors.As(explained, &unavailable):
		e.lose(unavailable)
	}
	return explained
}

// lost notes that a connection to the engine has ended before its time, or that the
// engine has gone silent.
func (e *Engine) lost(err error) {
	what := "the connection to the Docker engine was lost"
	if errors.Is(err, errSilent) {
		what, err = "the Docker engine no longer answers", errSilent
	}
	e.lose(&Unavailable{
		What: what, Cause: err,
		Remedy: "once it answers, gauntlet clean --run " + e.run + " removes what is left",
	})
}

// broken says whether an error is that of a connection, or of waiting in vain, and
// not the engine's answer.
func broken(err error) bool {
	// The client marks what failed while it connected, but not for an attachment.
	var operation *net.OpError
	return client.IsErrConnectionFailed(err) || errors.As(err, &operation) || errors.Is(err, errSilent) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

// labels are those of whatever this run makes.
func (e *Engine) labels() map[string]string {
	return map[string]string{Label: "true", RunLabel: e.run}
}

// explain puts what the engine refused in a sentence, with what to do where
// that is known.
func explain(operation string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC) || strings.Contains(err.Error(), "no space left on device"):
		return &Unavailable{
			What:   operation + ": the disk of the Docker engine is full",
			Remedy: "free some of it (docker system df shows what takes it)",
		}
	case errors.Is(err, errSilent):
		return &Unavailable{What: operation + ": the Docker engine no longer answers", Remedy: "start it again"}
	case client.IsErrConnectionFailed(err):
		return &Unavailable{What: operation + ": the Docker engine is gone", Remedy: "start it again", Cause: err}
	}
	return fmt.Errorf("%s: %w", operation, err)
}
