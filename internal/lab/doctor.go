package lab

import (
	"context"
	"fmt"

	"ambientlab/internal/cluster"
	"ambientlab/internal/docker"
	"ambientlab/internal/doctor"
	"ambientlab/internal/session"
	"ambientlab/internal/ui"
)

// Doctor checks this host, and the cluster where there is one, for what is known to break a lab. Where no Docker engine
// answers and no provider is named, it also tries what an embedded lab needs, and says what sm:lab would choose. It
// changes nothing; its exit code is that of the first failure.
func Doctor(ctx context.Context, env *session.Env) error {
	var checks []doctor.Check
	provider, chosen := env.FindProvider(ctx)
	if chosen != nil || provider.Traits().UsesDocker {
		api, endpoint, err := docker.New(docker.SystemEnv())
		if err != nil {
			return err
		}
		var ports []int
		for _, d := range dashboards("", nil) {
			ports = append(ports, d.local)
		}
		host := doctor.NewHost(api, endpoint, env.Settings.KubeconfigFile(), ports)
		if user, ok := provider.(cluster.NodeImageUser); ok {
			if images, err := user.NodeImages(); err == nil && len(images) > 0 {
				host.NodeImage = images[0]
			}
		}
		checks = doctor.HostChecks(host)
	}
	plane, noDocker, err := env.WithoutDocker(ctx)
	if err != nil {
		return err
	}
	if plane != nil {
		checks = append(checks, doctor.PodsCheck(plane.TryPods))
	} else if runner, is := provider.(cluster.PodRunner); is && chosen == nil {
		checks = append(checks, doctor.PodsCheck(runner.TryPods))
	}
	ready := false
	checks = append(checks, doctor.ClusterCheck(func(ctx context.Context) (string, bool, error) {
		if chosen != nil {
			return "", false, chosen
		}
		info, err := provider.Inspect(ctx)
		ready = info.State == cluster.Ready
		return info.Summary(), ready || info.State == cluster.Absent, err
	}))
	table := ui.Table{Header: []string{"CHECK", "VERDICT", "SEEN"}}
	results, failed := doctor.Run(ctx, checks, nil)
	for _, r := range results {
		seen := r.Seen
		if r.Err != nil {
			seen = r.Err.Error()
		}
		table.Add(r.Title, string(r.Verdict), seen)
		if r.Verdict == doctor.Warning {
			env.Warn("sm:doctor: "+r.Title, seen)
		}
	}
	if err := table.Write(env.Out); err != nil {
		return fmt.Errorf("printing what was found: %w", err)
	}
	switch {
	case plane != nil:
		env.Tell("mage sm:lab would choose the embedded control plane, because %s", noDocker)
		env.Tell("mage sm:install needs SM_PROVIDER=embedded for that; without it, it creates a kind cluster")
	case failed != nil:
	case ready:
		env.Next("mage sm:status")
	default:
		env.Next("mage sm:install")
	}
	return failed
}
