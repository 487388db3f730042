package lab

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"

	"golang.org/x/term"

	"ambientlab/internal/apply"
	"ambientlab/internal/engine"
	claims "ambientlab/internal/lesson"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
	"ambientlab/internal/probe/report"
	"ambientlab/internal/problem"
	"ambientlab/internal/upstream"
)

// TrafficOptions are sm:traffic's.
type TrafficOptions struct {
	From, Path string
	RPS        float64
	Count      int
}

// Verify judges every claim of the lessons that are on, on traffic, or where no packets flow on configuration. It prints the
// verdicts on stdout and, with a folder, writes the report there. It fails unless every claim is proven.
func (l *Lab) Verify(ctx context.Context, out string) error {
	if err := l.attach(ctx); err != nil {
		return err
	}
	env, lessons, err := l.proofs(ctx)
	if err != nil {
		return err
	}
	title := "Judging what the lessons claim"
	if env.World == nil {
		title = "Judging what the lessons claim on configuration, not on traffic"
	}
	var found probe.Report
	step := engine.Step{ID: "verify", Title: title, Do: func(ctx context.Context) error {
		env.Progress = func(format string, args ...any) { engine.Progress(ctx, format, args...) }
		found, err = probe.Run(ctx, env)
		return err
	}}
	if _, err := l.apply(ctx, engine.Plan{Name: "verify", Title: "Proofs", Steps: []engine.Step{step}}); err != nil {
		return err
	}
	return l.conclude(found, out, lessons.next())
}

// conclude prints and writes a report, and turns anything but "all proven" into a failure; next is what to type where
// all is proven.
func (l *Lab) conclude(found probe.Report, out, next string) error {
	if err := report.WriteTable(l.out, found); err != nil {
		return fmt.Errorf("printing the verdicts: %w", err)
	}
	if out != "" {
		if err := report.WriteFolder(out, found); err != nil {
			return err
		}
		l.tell("report: %s/report.html, report.json, junit.xml", strings.TrimSuffix(out, "/"))
	}
	if found.Proven() {
		l.thenType("%s", next)
		return nil
	}
	refuted, inconclusive := found.Count(probe.Refuted), found.Count(probe.Inconclusive)
	kind := problem.ClaimInconclusive
	if refuted > 0 {
		kind = problem.ClaimRefuted
	}
	return problem.New(kind, nil, "of %d claims %d were refuted and %d are inconclusive", len(found.Claims), refuted, inconclusive)
}

// proofs gathers what the proofs need: the cluster, the lessons that were asked for, the substitutes in use.
func (l *Lab) proofs(ctx context.Context) (probe.Env, Lessons, error) {
	client, err := l.connect(ctx)
	if err != nil {
		return probe.Env{}, Lessons{}, err
	}
	lessons, err := l.lessons(ctx, client)
	if err != nil {
		return probe.Env{}, lessons, err
	}
	if !lessons.Apps {
		return probe.Env{}, lessons, problem.New(problem.ObjectMissing, nil, "the applications are not installed, so there is nothing to judge")
	}
	m, err := l.mesh(ctx)
	if err != nil {
		return probe.Env{}, lessons, err
	}
	env := probe.Env{
		Lab: l.Settings.Cluster, Namespace: l.Settings.Namespace, Claims: claims.Claims(),
		Lessons: probe.Lessons{Waypoint: lessons.Waypoint, Fault: lessons.Fault, Authz: lessons.Authz},
	}
	if !l.carriesPackets() {
		env.Configuration = probe.NewConfiguration(m, l.target())
	} else {
		forwarder, err := mesh.NewForwarder(client.Config())
		if err != nil {
			return probe.Env{}, lessons, err
		}
		if env.World, err = probe.NewKubernetes(client.Config(), forwarder, m, l.target()); err != nil {
			return probe.Env{}, lessons, err
		}
	}
	err = l.describe(ctx, client, &env)
	return env, lessons, err
}

// describe adds what the reader of a report should know: versions, and what is not what it says it is.
func (l *Lab) describe(ctx context.Context, client *apply.Client, env *probe.Env) error {
	subs, err := l.substitutes(ctx)
	if err != nil {
		return err
	}
	for _, ref := range slices.Sorted(maps.Keys(subs)) {
		env.Substitutes = append(env.Substitutes, probe.Substitute{Image: ref, By: subs[ref]})
	}
	version, err := client.Kube().Discovery().ServerVersion()
	if err != nil {
		return fmt.Errorf("asking the API server for its version: %w", err)
	}
	env.Facts = append(env.Facts,
		probe.Fact{Name: "provider", Value: l.Settings.Provider},
		probe.Fact{Name: "Kubernetes", Value: version.GitVersion},
		probe.Fact{Name: "Istio", Value: upstream.IstioVersion})
	return nil
}

// Traffic shows requests to appb as they happen, until it is interrupted or their number is reached.
func (l *Lab) Traffic(ctx context.Context, options TrafficOptions) error {
	if err := options.validate(); err != nil {
		return err
	}
	if err := l.attach(ctx); err != nil {
		return err
	}
	if err := l.needPackets("sm:traffic"); err != nil {
		return err
	}
	env, _, err := l.proofs(ctx)
	if err != nil {
		return err
	}
	file, isFile := l.out.(*os.File)
	_, err = probe.Traffic(ctx, env, probe.Live{
		From: probe.Caller(options.From), Method: "GET", Path: options.Path, RPS: options.RPS, Count: options.Count,
		Out: l.out, Terminal: isFile && term.IsTerminal(int(file.Fd())),
	})
	if err = errors.Join(err, env.World.Close(context.WithoutCancel(ctx))); err == nil {
		l.thenType("mage sm:verify to have it measured and judged")
	}
	return err
}

func (o TrafficOptions) validate() error {
	var faults []string
	if o.From != string(probe.Appa) && o.From != string(probe.Gateway) {
		faults = append(faults, fmt.Sprintf("-from=%q is not accepted; accepted: appa or gateway", o.From))
	}
	if !strings.HasPrefix(o.Path, "/") || strings.ContainsAny(o.Path, " \n\t\"\\#") {
		faults = append(faults, fmt.Sprintf("-path=%q is not accepted; accepted: a path that starts with / and holds no space or quote", o.Path))
	}
	if !(o.RPS > 0 && o.RPS <= 50) {
		faults = append(faults, fmt.Sprintf("-rps=%v is not accepted; accepted: a number above 0 and up to 50", o.RPS))
	}
	if o.Count < 0 || o.Count > probe.LiveLimit {
		faults = append(faults, fmt.Sprintf("-count=%d is not accepted; accepted: 0 (until Ctrl-C) to %d", o.Count, probe.LiveLimit))
	}
	if len(faults) > 0 {
		return problem.New(problem.SettingInvalid, nil, "%s", strings.Join(faults, "\n"))
	}
	return nil
}
