package apply

import (
	"testing"
	"time"

	"ambientlab/internal/upstream"
)

// everything upstream gives, as the lab's parts.
func parts(t *testing.T) []Set {
	t.Helper()
	u := upstream.New("")
	gateway, err := u.GatewayAPI(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	metallb, err := u.MetalLB(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	istio, err := u.Istio(t.Context(), upstream.IstioValues{})
	if err != nil {
		t.Fatal(err)
	}
	sets := []Set{{Name: "gateway-api", Objects: gateway}, {Name: "metallb", Objects: metallb}}
	for _, name := range upstream.Components() {
		sets = append(sets, Set{Name: "istio-" + name, Objects: istio[name]})
	}
	for _, name := range upstream.Addons() {
		objs, err := u.Addon(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		sets = append(sets, Set{Name: name, Objects: objs})
	}
	return sets
}

func TestUpstreamIsAppliedOnce(t *testing.T) {
	c := cluster(t, "once")
	ctx := t.Context()
	for _, set := range parts(t) {
		start := time.Now()
		plan, err := c.Diff(ctx, set)
		if err != nil {
			t.Fatalf("%s: %v", set.Name, err)
		}
		planned := time.Since(start)
		start = time.Now()
		done, err := c.Apply(ctx, set)
		if err != nil {
			t.Fatalf("%s: %v", set.Name, err)
		}
		applied := time.Since(start)
		start = time.Now()
		again, err := c.Diff(ctx, set)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d objects, %d planned in %v, %d changed in %v, diff again in %v", set.Name, len(set.Objects),
			len(plan), planned, len(done), applied, time.Since(start))
		if len(plan) != len(set.Objects) || len(done) != len(set.Objects) {
			t.Errorf("%s: planned %d and changed %d of %d", set.Name, len(plan), len(done), len(set.Objects))
		}
		for _, change := range again {
			t.Errorf("%s: a second run would %s %s: %s", set.Name, change.Action, change.Object, change.Detail)
		}
		reason, err := c.Ready(ctx, set)
		t.Logf("%s: ready: %q %v", set.Name, reason, err)
	}
}
