package lab

import (
	"context"
	"fmt"
	"time"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"

	"ambientlab/internal/engine"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
	"ambientlab/internal/problem"
)

// configurationClaim is a statement about what istiod sends to the proxies. It is no statement about traffic: that a
// proxy would do what its configuration says is taken on trust here, and measured only where pods run.
type configurationClaim struct {
	id, title, learn string
	// on tells whether the claim is made with the lessons as they are.
	on     func(Lessons) bool
	checks []configurationCheck
}

// configurationCheck is one look into the configuration of the proxies of a Gateway.
type configurationCheck struct {
	name, gateway, expected string
	look                    func(*mesh.Dump) (held bool, reason string)
}

// evidence names what the verdicts of verifyConfiguration rest on, in the report.
const evidence = "configuration that istiod sends over xDS to a client that speaks for the gateway's and the waypoint's pods; " +
	"no request was sent, since the embedded control plane carries no packets"

// verifyConfiguration is sm:verify where nothing carries packets: it holds what the lessons claim against what istiod
// sends, and says so.
func (l *Lab) verifyConfiguration(ctx context.Context, out string) error {
	client, err := l.connect(ctx)
	if err != nil {
		return err
	}
	lessons, err := l.lessons(ctx, client)
	if err != nil {
		return err
	}
	if !lessons.Apps {
		return problem.New(problem.ObjectMissing, nil, "the applications are not installed, so there is nothing to check")
	}
	env := probe.Env{}
	if err := l.describe(ctx, client, &env); err != nil {
		return err
	}
	found := probe.Report{
		Schema: probe.SchemaVersion, Lab: l.Settings.Cluster, Namespace: l.Settings.Namespace, Started: time.Now().UTC(),
		Lessons: lessons.forProof(), Substitutes: env.Substitutes,
		Facts: append(env.Facts, probe.Fact{Name: "evidence", Value: evidence}),
	}
	step := engine.Step{ID: "verify", Title: "Checking the configuration that the lessons claim", Do: func(ctx context.Context) error {
		found.Claims, err = l.checkConfiguration(ctx, lessons)
		return err
	}}
	if _, err := l.apply(ctx, engine.Plan{Name: "verify", Title: "Claims on configuration, not on traffic", Steps: []engine.Step{step}}); err != nil {
		return err
	}
	found.Took = time.Since(found.Started)
	l.tell("evidence: %s", evidence)
	return l.conclude(found, out, lessons.next())
}

// checkConfiguration asks for the configuration of each proxy once, so that all claims are about the same, and only of
// those that a claim is about: the pod of a waypoint that was just turned off may still be there.
func (l *Lab) checkConfiguration(ctx context.Context, lessons Lessons) ([]probe.Result, error) {
	m, err := l.mesh(ctx)
	if err != nil {
		return nil, err
	}
	var waypoints []string
	if lessons.Waypoint {
		if waypoints, err = m.WaypointAddresses(ctx, l.target()); err != nil {
			return nil, err
		}
	}
	found := map[string]configuration{}
	var results []probe.Result
	for _, claim := range l.configurationClaims(lessons, waypoints) {
		if !claim.on(lessons) {
			continue
		}
		for _, check := range claim.checks {
			if _, known := found[check.gateway]; !known {
				found[check.gateway] = l.configuration(ctx, m, check.gateway)
			}
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		results = append(results, claim.judge(found, time.Now))
		engine.Progress(ctx, "%s: %s", claim.title, results[len(results)-1].Verdict)
	}
	if lessons.Authz != nil && lessons.Authz.Strict {
		strict, err := l.strictClaim(ctx, m, *lessons.Authz)
		if err != nil {
			return nil, err
		}
		engine.Progress(ctx, "%s: %s", strict.Title, strict.Verdict)
		results = append(results, strict)
	}
	return results, nil
}

// strictClaim is about what -strict adds. The node proxies enforce it, and none runs here: what can be looked at is that
// the objects are as they were asked for, and that Istio has accepted the policy for the node proxies.
func (l *Lab) strictClaim(ctx context.Context, m *mesh.Mesh, authz params.Authz) (probe.Result, error) {
	started := time.Now()
	result := probe.Result{
		ID: "config-authz-strict", Title: "configuration: Istio accepts for the node proxies that only the waypoint reaches appb's pod",
		Learn:   "ztunnel would enforce it at the pod. What istiod sends to a ztunnel is not looked at here, nor whether one obeys.",
		Verdict: probe.Proven,
	}
	check := func(name, expected string, held bool, reason string) {
		verdict, text := probe.Proven, expected
		if !held {
			verdict, text = probe.Refuted, fmt.Sprintf("expected: %s; found: %s", expected, reason)
			result.Verdict = verdict
		}
		result.Checks = append(result.Checks, probe.Check{Name: name, Verdict: verdict, Text: text})
	}
	held, reason, err := m.Check(ctx, mesh.StrictOn(l.Settings.Namespace, names.OnlyViaWaypoint))
	if err != nil {
		return result, err
	}
	check("accepted", "AuthorizationPolicy "+names.OnlyViaWaypoint+" has condition ZtunnelAccepted", held, reason)
	for _, step := range l.engine.Inspect(ctx, l.authzPlan(authz)) {
		if step.ID == "strict" {
			check("objects", "the policy and the PeerAuthentication are as they were asked for", step.Err == nil && step.Status.Done, reasonOf(step))
		}
	}
	result.Took = time.Since(started)
	return result, nil
}

// configuration is that of a Gateway's proxy, or why it cannot be had.
type configuration struct {
	dump *mesh.Dump
	why  string
}

func (l *Lab) configuration(ctx context.Context, m *mesh.Mesh, gateway string) configuration {
	pods, err := m.Pods(ctx, l.Settings.Namespace, gateway)
	if err != nil {
		return configuration{why: err.Error()}
	}
	if len(pods) == 0 {
		return configuration{why: fmt.Sprintf("Gateway %s has no pod that istiod could be asked about", gateway)}
	}
	dump, err := m.Dump(ctx, l.Settings.Namespace, pods[0])
	if err != nil {
		return configuration{why: err.Error()}
	}
	return configuration{dump: dump}
}

func (c configurationClaim) judge(known map[string]configuration, now func() time.Time) probe.Result {
	started := now()
	result := probe.Result{ID: c.id, Title: "configuration: " + c.title, Learn: c.learn, Verdict: probe.Proven}
	for _, check := range c.checks {
		verdict, text := probe.Proven, check.expected
		if of := known[check.gateway]; of.dump == nil {
			verdict, text = probe.Inconclusive, of.why
		} else if held, reason := check.look(of.dump); !held {
			verdict, text = probe.Refuted, fmt.Sprintf("expected: %s; found: %s", check.expected, reason)
		}
		result.Checks = append(result.Checks, probe.Check{Name: check.name, Verdict: verdict, Text: text})
		if verdict == probe.Refuted || result.Verdict == probe.Proven {
			result.Verdict = verdict
		}
	}
	result.Took = now().Sub(started)
	return result
}
