package lab

import (
	"context"
	"fmt"

	"ambientlab/internal/cluster"
	"ambientlab/internal/docker"
	"ambientlab/internal/doctor"
	"ambientlab/internal/ui"
)

// Doctor checks this host, and the cluster where there is one, for what is known to break a lab. It changes nothing;
// its exit code is that of the first failure.
func (l *Lab) Doctor(ctx context.Context) error {
	var ports []int
	for _, d := range l.dashboards() {
		ports = append(ports, d.local)
	}
	var checks []doctor.Check
	if l.Settings.Provider != ProviderEmbedded { // which needs none of what these look for: Docker and its limits
		api, endpoint, err := docker.New(docker.SystemEnv())
		if err != nil {
			return err
		}
		checks = doctor.HostChecks(doctor.NewHost(api, endpoint, l.kubeconfig(), ports))
	}
	checks = append(checks, doctor.ClusterCheck(func(ctx context.Context) (string, bool, error) {
		if err := l.choose(ctx); err != nil {
			return "", false, err
		}
		info, err := l.provider.Inspect(ctx)
		return info.Summary(), info.State == cluster.Ready || info.State == cluster.Absent, err
	}))
	table := ui.Table{Header: []string{"CHECK", "VERDICT", "SEEN"}}
	results, failed := doctor.Run(ctx, checks, nil)
	for _, r := range results {
		seen := r.Seen
		if r.Err != nil {
			seen = r.Err.Error()
		}
		table.Add(r.Title, string(r.Verdict), seen)
	}
	if err := table.Write(l.out); err != nil {
		return fmt.Errorf("printing what was found: %w", err)
	}
	if failed == nil {
		l.thenType("mage sm:install")
	}
	return failed
}
