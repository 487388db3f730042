package lab

import (
	"context"

	"ambientlab/internal/lb"
	"ambientlab/internal/mesh"
	"ambientlab/internal/problem"
)

func (l *Lab) chooseEmbedded(context.Context) error {
	return problem.New(problem.HostUnsupported, nil, "the embedded control plane is not built yet")
}

func (l *Lab) embeddedPool() (lb.Pool, error) { return lb.Pool{}, nil }

// meshOptions says how the proxies are asked.
func (l *Lab) meshOptions() []mesh.Option { return nil }

func (l *Lab) verifyConfiguration(context.Context, string) error {
	return problem.New(problem.HostUnsupported, nil, "the embedded control plane is not built yet")
}
