package lesson

import (
	"context"
	"fmt"

	"ambientlab/internal/mesh"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
)

// PrintProxies prints the listeners and routes of Gateways of the applications' namespace, on stdout.
func PrintProxies(ctx context.Context, s *session.Session, gateways ...string) error {
	m, err := s.Mesh(ctx)
	if err != nil {
		return err
	}
	for _, gateway := range gateways {
		if err := printProxy(ctx, s, m, gateway); err != nil {
			return err
		}
	}
	return nil
}

// printProxy prints the configuration of one replica of a Gateway; all replicas have the same.
func printProxy(ctx context.Context, s *session.Session, m *mesh.Mesh, gateway string) error {
	pods, err := m.Pods(ctx, s.Config.Namespace, gateway)
	if err != nil {
		return err
	}
	if len(pods) == 0 {
		return problem.New(problem.NotReady, nil, "Gateway %s has no running pod, so there is no proxy to ask", gateway)
	}
	dump, err := m.Dump(ctx, s.Config.Namespace, pods[0])
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.Out, "# %s: listeners\n", pods[0]); err != nil {
		return fmt.Errorf("printing listeners: %w", err)
	}
	if err := dump.WriteListeners(s.Out); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(s.Out, "\n# %s: routes\n", pods[0]); err != nil {
		return fmt.Errorf("printing routes: %w", err)
	}
	if err := dump.WriteRoutes(s.Out); err != nil {
		return err
	}
	_, err = fmt.Fprintln(s.Out)
	return err
}
