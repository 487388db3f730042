package session

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moby/moby/client"

	"ambientlab/internal/bundle"
	"ambientlab/internal/cluster"
	"ambientlab/internal/docker"
	"ambientlab/internal/problem"
)

// engineTimeout bounds the first requests to the Docker engine; docker.Ping has a shorter limit of its own.
const engineTimeout = 5 * time.Second

// dockerEngine is what a session asks of a Docker engine; *client.Client is one.
type dockerEngine interface {
	cluster.Docker
	bundle.ImageEngine
	Info(ctx context.Context, options client.InfoOptions) (client.SystemInfoResult, error)
	DistributionInspect(
		ctx context.Context, image string, options client.DistributionInspectOptions,
	) (client.DistributionInspectResult, error)
}

// UseDocker makes every session use a Docker engine, whatever the environment says.
func (e *Env) UseDocker(engine dockerEngine) { e.shared.docker = engine }

// Docker is the Docker engine of the lab's nodes, or nil.
func (e *Env) Docker() dockerEngine { return e.shared.docker }

// DockerInfo connects to the Docker engine, once, and asks it about itself.
func (e *Env) DockerInfo(ctx context.Context) (client.SystemInfoResult, error) {
	parent := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, engineTimeout, errors.New("the Docker engine does not answer"))
	defer cancel()
	if e.shared.docker == nil {
		api, endpoint, err := docker.New(docker.SystemEnv())
		if err != nil {
			return client.SystemInfoResult{}, err
		}
		if err := docker.Ping(ctx, api, endpoint); err != nil {
			return client.SystemInfoResult{}, err
		}
		e.shared.docker, e.shared.endpoint = api, endpoint
	}
	info, err := e.shared.docker.Info(ctx, client.InfoOptions{})
	if err != nil && ctx.Err() != nil && parent.Err() == nil {
		return info, problem.New(problem.DockerNotRunning, context.Cause(ctx),
			"the Docker engine at %s did not answer within %s", e.shared.endpoint, engineTimeout)
	}
	if err != nil {
		return info, fmt.Errorf("asking the Docker engine about itself: %w",
			docker.Explain(ctx, err, e.shared.endpoint))
	}
	return info, nil
}

// registryTimeout bounds the question whether a registry has the node image: without a network, the other provider
// should be used soon.
const registryTimeout = 15 * time.Second

// imageObstacle says why a node image cannot be had, or "".
func (e *Env) imageObstacle(ctx context.Context, ref string) (string, error) {
	if e.shared.bundle != nil {
		if _, err := e.shared.bundle.Lookup(ref); err == nil {
			return "", nil
		}
	}
	if _, err := e.shared.docker.ImageInspect(ctx, ref); err == nil {
		return "", nil
	}
	limited, cancel := context.WithTimeoutCause(ctx, registryTimeout,
		fmt.Errorf("no registry answered within %s", registryTimeout))
	defer cancel()
	if _, err := e.shared.docker.DistributionInspect(limited, ref, client.DistributionInspectOptions{}); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return fmt.Sprintf("node image %s is not in Docker, nor in a bundle, and cannot be pulled: %v", ref, err), nil
	}
	return "", nil
}
