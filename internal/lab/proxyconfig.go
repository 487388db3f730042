package lab

import (
	"context"

	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
)

// ProxyConfig is the target that prints the listeners and routes of the gateway, of the waypoint or of both, on stdout.
func ProxyConfig(of string) Target {
	return func(ctx context.Context, env *session.Env) error {
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
		s, err := session.Open(ctx, env, session.MustBeInstalled)
		if err != nil {
			return err
		}
		if err := lesson.PrintProxies(ctx, s, gateways...); err != nil {
			return err
		}
		s.Next("mage sm:verify to see it proven")
		return nil
	}
}
