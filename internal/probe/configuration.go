package probe

import (
	"context"
	"fmt"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
)

// Configuration is the side of the proofs that needs no packets: what istiod sends to the proxies.
type Configuration interface {
	// Dump gives the configuration of a Gateway's proxy.
	Dump(ctx context.Context, source Source) (*mesh.Dump, error)
	// WaypointAddresses are those under which the gateway may know the waypoint.
	WaypointAddresses(ctx context.Context) ([]string, error)
	// Objects reads the objects that the lessons are made of.
	Objects(ctx context.Context) (*mesh.Objects, error)
}

const configurationEvidence = "configuration that istiod sends over xDS to a client that has the identities of the " +
	"gateway's and the waypoint's pods; no request was sent, since this cluster carries no packets"

// meshConfiguration reads the configuration of a cluster.
type meshConfiguration struct {
	mesh   *mesh.Mesh
	target mesh.Target
}

// NewConfiguration reads the configuration of the proxies of a target.
func NewConfiguration(m *mesh.Mesh, target mesh.Target) Configuration {
	return meshConfiguration{m, target}
}

func (c meshConfiguration) Dump(ctx context.Context, source Source) (*mesh.Dump, error) {
	pods, err := c.mesh.Pods(ctx, c.target.Service.Namespace, string(source))
	if err != nil {
		return nil, err
	}
	if len(pods) == 0 {
		return nil, fmt.Errorf("istiod cannot be asked about Gateway %s, which has no pod", source)
	}
	return c.mesh.Dump(ctx, c.target.Service.Namespace, pods[0])
}

func (c meshConfiguration) WaypointAddresses(ctx context.Context) ([]string, error) {
	return c.mesh.WaypointAddresses(ctx, c.target)
}

func (c meshConfiguration) Objects(ctx context.Context) (*mesh.Objects, error) {
	return c.mesh.Objects(ctx, c.target)
}

// onConfiguration judges claims on configuration. Each source is read once, when a claim first needs it, so that all
// claims are about the same state.
func (e Env) onConfiguration(ctx context.Context, claims []Claim) ([]Result, error) {
	scene := Scene{
		Lessons: e.Lessons,
		Target: mesh.Target{
			Service:  mesh.Service{Namespace: e.Namespace, Name: names.AppB, Port: names.AppPort},
			Waypoint: names.Waypoint, Gateway: names.Gateway,
		},
		WaypointPrincipal: e.principal(names.Waypoint), // istiod names the service account after the Gateway

		Policy: mesh.Policy{Namespace: e.Namespace, Name: names.GetOnly, Methods: []string{"GET"}},
	}
	if authz := e.Lessons.Authz(); authz != nil {
		for _, account := range authz.Allowed {
			scene.Policy.Principals = append(scene.Policy.Principals, e.principal(account))
		}
	}
	if e.Lessons.On("waypoint") {
		var err error
		if scene.WaypointAddresses, err = e.Configuration.WaypointAddresses(ctx); err != nil {
			return nil, err
		}
	}
	type evidence struct {
		Configured
		err error
	}
	known := map[Source]evidence{}
	read := func(ctx context.Context, source Source) evidence {
		found, read := known[source]
		switch {
		case read:
		case source == IstioObjects:
			found.Objects, found.err = e.Configuration.Objects(ctx)
		default:
			found.Dump, found.err = e.Configuration.Dump(ctx, source)
		}
		known[source] = found
		return found
	}
	var results []Result
	for _, claim := range claims {
		result, started := Result{Title: "configured: " + claim.Title}, e.Now()
		for _, check := range claim.checks(e.Lessons) {
			found := read(ctx, check.Of)
			verdict, text := Proven, check.Expect(scene)
			if found.err != nil {
				verdict, text = Inconclusive, found.err.Error()
			} else if met, reason := check.Met(scene, found.Configured); !met {
				verdict, text = Refuted, fmt.Sprintf("expected: %s; found: %s", text, reason)
			}
			result.Checks = append(result.Checks, Check{check.Name, verdict, text})
		}
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		result.Verdict, result.Took = conclude(result.Checks), e.Now().Sub(started)
		results = append(results, result)
	}
	return results, nil
}
