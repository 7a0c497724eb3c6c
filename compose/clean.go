package compose

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/docker/docker/api/types/container"
	"github.com/docker/docker/api/types/filters"
	"github.com/docker/docker/api/types/image"
	"github.com/docker/docker/api/types/network"
	"github.com/docker/docker/api/types/swarm"
	"github.com/docker/docker/api/types/volume"
)

// Removed counts what Clean took down.
type Removed struct {
	Services, Configs, Containers, Networks, Volumes, Images int
}

func (r Removed) String() string {
	return fmt.Sprintf("removed %d containers, %d services, %d configs, %d networks, %d volumes, %d images",
		r.Containers, r.Services, r.Configs, r.Networks, r.Volumes, r.Images)
}

// Clean removes everything of a run, or of all runs where run is "", those that
// are still going included: services with their configs, containers, networks and volumes, and for
// all runs the images that were built too. It goes on past what it can't
// remove, and says so.
func (e *Engine) Clean(ctx context.Context, run string) (Removed, error) {
	return e.clean(ctx, run, 0)
}

// quietTime is how long nothing of a run may have come or gone until it is taken for
// granted that the engine is making nothing of it any more: several times what it takes
// to make a container, on a machine that is busy.
const quietTime = 6 * time.Second

// clean is Clean, which goes on for as long as anything has come or gone in the
// quiet time before.
func (e *Engine) clean(ctx context.Context, run string, quiet time.Duration) (Removed, error) {
	label := Label
	if run != "" {
		label = RunLabel + "=" + run
	}
	c := cleaner{engine: e, ctx: ctx, label: filters.NewArgs(filters.Arg("label", label))}
	c.services()
	c.containers()
	c.await(quiet)
	c.networks()
	c.volumes()
	if run == "" {
		c.images()
	}
	return c.removed, errors.Join(c.errs...)
}

type cleaner struct {
	engine  *Engine
	ctx     context.Context
	label   filters.Args
	removed Removed
	errs    []error
}

// done counts what was removed, or notes why it was not.
func (c *cleaner) done(count *int, err error) {
	if err != nil {
		c.errs = append(c.errs, err)
		return
	}
	*count++
}

func (c *cleaner) services() {
	all, err := c.engine.api.ServiceList(c.ctx, swarm.ServiceListOptions{Filters: c.label})
	if err != nil {
		return // this engine is in no swarm, so there is none
	}
	for _, s := range all {
		c.done(&c.removed.Services, explain("remove service "+s.Spec.Name, c.engine.api.ServiceRemove(c.ctx, s.ID)))
	}
	configs, err := c.engine.api.ConfigList(c.ctx, swarm.ConfigListOptions{Filters: c.label})
	if err != nil {
		c.errs = append(c.errs, explain("list the configs", err))
	}
	for _, x := range configs {
		c.done(&c.removed.Configs, explain("remove config "+x.Spec.Name, c.engine.api.ConfigRemove(c.ctx, x.ID)))
	}
}

// passes is how often containers are looked for: the engine may still be making
// one that it was asked for before.
const passes = 3

func (c *cleaner) containers() {
	known := map[string]bool{}
	for range passes {
		all, err := c.engine.api.ContainerList(c.ctx, container.ListOptions{All: true, Filters: c.label})
		if err != nil {
			c.errs = append(c.errs, explain("list the containers", err))
		}
		if len(all) == 0 {
			return
		}
		c.kill(all)
		for _, x := range all {
			err := c.engine.remove(c.ctx, x.ID)
			if err != nil || !known[x.ID] {
				c.done(&c.removed.Containers, err)
			}
			known[x.ID] = true
		}
	}
}

// await removes services and containers that appear, until none has in the quiet
// time before.
func (c *cleaner) await(quiet time.Duration) {
	poll := time.NewTicker(pollInterval)
	defer poll.Stop()
	for last := time.Now(); time.Since(last) < quiet; {
		select {
		case <-poll.C:
		case <-c.ctx.Done():
			return
		}
		before := c.removed
		if c.services(); len(c.errs) == 0 {
			c.containers()
		}
		if len(c.errs) > 0 {
			return
		}
		if c.removed != before {
			last = time.Now()
		}
	}
}

// kill ends all that run, all at once. What is left of them is removed after
// that, which takes the engine longer.
func (c *cleaner) kill(all []container.Summary) {
	var killing sync.WaitGroup
	for _, x := range all {
		if x.State == container.StateRunning {
			killing.Go(func() { c.engine.api.ContainerKill(c.ctx, x.ID, "KILL") }) // it may have ended
		}
	}
	killing.Wait()
}

func (c *cleaner) networks() {
	all, err := c.engine.api.NetworkList(c.ctx, network.ListOptions{Filters: c.label})
	if err != nil {
		c.errs = append(c.errs, explain("list the networks", err))
	}
	for _, x := range all {
		c.done(&c.removed.Networks, explain("remove network "+x.Name, c.engine.api.NetworkRemove(c.ctx, x.ID)))
	}
}

func (c *cleaner) volumes() {
	all, err := c.engine.api.VolumeList(c.ctx, volume.ListOptions{Filters: c.label})
	if err != nil {
		c.errs = append(c.errs, explain("list the volumes", err))
	}
	for _, x := range all.Volumes {
		c.done(&c.removed.Volumes, explain("remove volume "+x.Name, c.engine.api.VolumeRemove(c.ctx, x.Name, true)))
	}
}

func (c *cleaner) images() {
	all, err := c.engine.api.ImageList(c.ctx, image.ListOptions{Filters: c.label})
	if err != nil {
		c.errs = append(c.errs, explain("list the images", err))
	}
	for _, x := range all {
		if !slices.ContainsFunc(x.RepoTags, builtHere) {
			continue
		}
		var errs []error
		for _, name := range x.RepoTags { // by its names, so that one that another is built from goes too
			_, err := c.engine.api.ImageRemove(c.ctx, name, image.RemoveOptions{Force: true, PruneChildren: true})
			errs = append(errs, explain("remove image "+name, err))
		}
		c.done(&c.removed.Images, errors.Join(errs...))
	}
}

// builtHere says whether a name is one that images get here. What somebody builds from
// such an image inherits its label, and has another name.
func builtHere(name string) bool { return strings.HasPrefix(name, repository+":") }
