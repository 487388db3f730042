package lab

import (
	"context"
	"fmt"

	"ambientlab/internal/lesson/names"

	"ambientlab/internal/mesh"
	"ambientlab/internal/problem"
)

// ProxyConfig prints the listeners and routes of the gateway, of the waypoint or of both, on stdout.
func (l *Lab) ProxyConfig(ctx context.Context, of string) error {
	gateways := []string{names.Gateway, names.Waypoint}
	switch of {
	case "":
	case "gateway":
		gateways = []string{names.Gateway}
	case "waypoint", names.Waypoint:
		gateways = []string{names.Waypoint}
	default:
		return problem.New(problem.SettingInvalid, nil, "-of=%q is not accepted; accepted: gateway or waypoint", of)
	}
	if err := l.attach(ctx); err != nil {
		return err
	}
	if err := l.printProxies(ctx, gateways...); err != nil {
		return err
	}
	l.thenType("mage sm:verify to see it proven")
	return nil
}

func (l *Lab) printProxies(ctx context.Context, gateways ...string) error {
	m, err := l.mesh(ctx)
	if err != nil {
		return err
	}
	for _, gateway := range gateways {
		if err := l.printProxy(ctx, m, gateway); err != nil {
			return err
		}
	}
	return nil
}

// printProxy prints what one replica of a gateway holds; replicas hold the same.
func (l *Lab) printProxy(ctx context.Context, m *mesh.Mesh, gateway string) error {
	pods, err := m.Pods(ctx, l.Settings.Namespace, gateway)
	if err != nil {
		return err
	}
	if len(pods) == 0 {
		return problem.New(problem.NotReady, nil, "Gateway %s has no running pod, so no proxy can be asked", gateway)
	}
	dump, err := m.Dump(ctx, l.Settings.Namespace, pods[0])
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(l.out, "# %s: listeners\n", pods[0]); err != nil {
		return fmt.Errorf("printing listeners: %w", err)
	}
	if err := dump.WriteListeners(l.out); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(l.out, "\n# %s: routes\n", pods[0]); err != nil {
		return fmt.Errorf("printing routes: %w", err)
	}
	if err := dump.WriteRoutes(l.out); err != nil {
		return err
	}
	_, err = fmt.Fprintln(l.out)
	return err
}
