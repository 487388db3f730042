package lab

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"ambientlab/internal/apply"
	"ambientlab/internal/engine"
	"ambientlab/internal/lesson"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
	"ambientlab/internal/probe/report"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/internal/upstream"
)

// Verify is the target that judges every claim of the lessons that are on, on traffic, or where no packets flow on
// configuration. It prints the verdicts on stdout and, with a folder, writes the report there. It fails unless every
// claim is proven.
func Verify(out string) Target {
	return func(ctx context.Context, env *session.Env) error {
		s, err := session.Open(ctx, env, session.MustBeInstalled)
		if err != nil {
			return err
		}
		claims, err := proofs(ctx, s)
		if err != nil {
			return err
		}
		title := "Judging what the lessons claim"
		if claims.World == nil {
			title = "Judging what the lessons claim on configuration, not on traffic"
		}
		var found probe.Report
		step := engine.Step{ID: "verify", Title: title, Do: func(ctx context.Context) error {
			claims.Progress = func(format string, args ...any) { engine.Progress(ctx, format, args...) }
			found, err = probe.Run(ctx, claims)
			return err
		}}
		if _, err := s.Apply(ctx,
			engine.Plan{Name: "verify", Title: "Proofs", Steps: []engine.Step{step}}); err != nil {
			return err
		}
		return conclude(s, found, out)
	}
}

// conclude prints and writes a report, and turns anything but "all proven" into a failure.
func conclude(s *session.Session, found probe.Report, out string) error {
	var table strings.Builder
	if err := report.WriteTable(&table, found); err != nil {
		return fmt.Errorf("printing the verdicts: %w", err)
	}
	if _, err := io.WriteString(s.Out, table.String()); err != nil {
		return fmt.Errorf("printing the verdicts: %w", err)
	}
	s.SubstitutesTold() // the table names them
	s.Remember("Verdicts", table.String())
	if out == "" {
		out = s.Settings.Report
	}
	if out != "" {
		if err := report.WriteFolder(out, found); err != nil {
			return err
		}
		s.Tell("report: %s/report.html, report.json, junit.xml", strings.TrimSuffix(out, "/"))
	}
	if found.Proven() {
		s.Next("%s", lesson.NextTarget(s.Found))
		return nil
	}
	refuted, inconclusive := found.Count(probe.Refuted), found.Count(probe.Inconclusive)
	kind := problem.ClaimInconclusive
	if refuted > 0 {
		kind = problem.ClaimRefuted
	}
	return problem.New(kind, found.Why(), "of %d claims %d were refuted and %d are inconclusive", len(found.Claims),
		refuted, inconclusive)
}

// proofs gathers what the proofs need: the cluster, the lessons that are on, the substitutes in use.
func proofs(ctx context.Context, s *session.Session) (probe.Env, error) {
	lessons, err := lesson.Found(s.Found)
	if err != nil {
		return probe.Env{}, err
	}
	if _, on := s.Found.Lessons["apps"]; !on {
		return probe.Env{},
			problem.New(problem.ObjectMissing, nil, "the applications are not installed, so there is nothing to judge")
	}
	client, err := s.Connect(ctx)
	if err != nil {
		return probe.Env{}, err
	}
	m, err := s.Mesh(ctx)
	if err != nil {
		return probe.Env{}, err
	}
	env := probe.Env{
		Lab: s.Settings.Cluster, Namespace: s.Config.Namespace, TrustDomain: s.Config.TrustDomain,
		Claims: lesson.Claims(), Lessons: lessons, Installed: probe.Installed{Addons: s.Config.Addons},
	}
	if !s.Info.Packets {
		env.Configuration = probe.NewConfiguration(m, lesson.Target(s))
	} else {
		forwarder, err := mesh.NewForwarder(client.Config())
		if err != nil {
			return probe.Env{}, err
		}
		if env.World, err = probe.NewKubernetes(client.Config(), forwarder, m, lesson.Target(s)); err != nil {
			return probe.Env{}, err
		}
	}
	return env, describe(ctx, s, client, &env)
}

// describe adds what the reader of a report should know: versions, and which images are substitutes.
func describe(ctx context.Context, s *session.Session, client *apply.Client, env *probe.Env) error {
	substitutes, err := s.Substitutes(ctx)
	if err != nil {
		return err
	}
	env.Installed.IstioProxy = substitutes.Proxy() == ""
	for _, ref := range slices.Sorted(maps.Keys(substitutes)) {
		env.Substitutes = append(env.Substitutes, probe.Substitute{Image: ref, By: substitutes[ref]})
	}
	version, err := client.Kube().Discovery().ServerVersion()
	if err != nil {
		return fmt.Errorf("asking the API server for its version: %w", err)
	}
	env.Facts = append(env.Facts,
		probe.Fact{Name: "provider", Value: s.Traits.Name},
		probe.Fact{Name: "Kubernetes", Value: version.GitVersion},
		probe.Fact{Name: "Istio", Value: upstream.IstioVersion})
	if env.Lessons.On("telemetry") {
		for _, note := range lesson.TelemetryNotes(s.Config.Addons, substitutes) {
			env.Facts = append(env.Facts, probe.Fact{Name: "telemetry", Value: note})
		}
	}
	return nil
}
