package lab

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/moby/moby/client"

	"ambientlab/internal/problem"
)

// registryTimeout bounds the question whether a registry has the node image: somebody without a network should not
// wait long for the other provider.
const registryTimeout = 15 * time.Second

// chooseAuto takes kind where a Docker engine answers and the node image can be had, and the embedded control plane
// otherwise. It says which, why, and how to get the other. Only sm:lab may choose so: a target that another one is to
// follow must not change its mind between the two.
func (l *Lab) chooseAuto(ctx context.Context) error {
	if !l.whole {
		return problem.New(problem.SettingInvalid, nil, "SM_PROVIDER=auto is for sm:lab alone; accepted here: kind, existing, embedded")
	}
	obstacle, err := l.kindObstacle(ctx)
	if err != nil {
		return err
	}
	if obstacle == "" {
		l.Settings.Provider = ProviderKind
		l.tell("provider: kind, because a Docker engine answers and the node image can be had; for the embedded control plane, set SM_PROVIDER=embedded")
	} else {
		l.Settings.Provider, l.words.provider = ProviderEmbedded, ProviderEmbedded
		l.tell("provider: the embedded control plane, because %s; for kind, see to that or set SM_PROVIDER=kind, which says what it needs", obstacle)
		l.tell("for the other targets, set SM_PROVIDER=embedded; the first build of its programs takes about eight minutes on 2 cores, and is done once")
	}
	return l.choose(ctx)
}

// kindObstacle says why a kind cluster cannot be made here, or "".
func (l *Lab) kindObstacle(ctx context.Context) (string, error) {
	if _, err := l.dockerInfo(ctx); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		var known *problem.Problem
		if errors.As(err, &known) {
			return fmt.Sprintf("%s (%s)", known.Seen, known.ID), nil
		}
		return err.Error(), nil
	}
	refs, err := l.nodeImages(l.usualNodeImage())
	if err != nil {
		return "", err
	}
	for _, ref := range refs {
		if obstacle, err := l.imageObstacle(ctx, ref); obstacle != "" || err != nil {
			return obstacle, err
		}
	}
	return "", nil
}

// imageObstacle says why a node image cannot be had, or "".
func (l *Lab) imageObstacle(ctx context.Context, ref string) (string, error) {
	if l.bundle != nil {
		if _, err := l.bundle.Lookup(ref); err == nil {
			return "", nil
		}
	}
	if _, err := l.docker.ImageInspect(ctx, ref); err == nil {
		return "", nil
	}
	asked, cancel := context.WithTimeoutCause(ctx, registryTimeout, fmt.Errorf("no registry answered within %s", registryTimeout))
	defer cancel()
	if _, err := l.docker.DistributionInspect(asked, ref, client.DistributionInspectOptions{}); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return fmt.Sprintf("node image %s is not in Docker, nor in a bundle, and cannot be pulled: %v", ref, err), nil
	}
	return "", nil
}
