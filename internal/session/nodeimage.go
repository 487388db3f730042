package session

import (
	"context"
	"fmt"
	"time"

	"github.com/moby/moby/client"
)

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
