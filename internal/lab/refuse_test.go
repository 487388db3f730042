package lab

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"ambientlab/internal/docker/dockertest"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// refused wants a problem of a kind that says each of some words, its advice included.
func refused(t *testing.T, what string, err error, kind problem.Kind, words ...string) {
	t.Helper()
	var known *problem.Problem
	if !problem.Is(err, kind) || !errors.As(err, &known) {
		t.Errorf("%s: got %v, want %s", what, err, kind.ID)
		return
	}
	says(t, what, err.Error()+"\n"+strings.Join(known.Advice, "\n"), words...)
}

// noStep wants that no step has begun.
func (d bed) noStep(t *testing.T) {
	t.Helper()
	if talk := d.talk.String(); strings.Contains(talk, ": start: ") {
		t.Errorf("a step began:\n%s", talk)
	}
}

// afterInstall are the targets that need a cluster.
func (d bed) afterInstall() map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"apps":        func(ctx context.Context) error { return d.Apps(ctx, false) },
		"waypoint":    func(ctx context.Context) error { return d.Waypoint(ctx, false) },
		"fault off":   func(ctx context.Context) error { return d.Fault(ctx, params.DefaultFault(), true) },
		"authz":       func(ctx context.Context) error { return d.Authz(ctx, "", false, false) },
		"verify":      func(ctx context.Context) error { return d.Verify(ctx, "") },
		"proxyConfig": func(ctx context.Context) error { return d.ProxyConfig(ctx, "") },
	}
}

// TestForeignKindCluster: the lab does not work on a kind cluster of the user's own that has the lab's name.
func TestForeignKindCluster(t *testing.T) {
	engine := newEngine(nodeContainer("ambient", "ambient-control-plane", node.ControlPlane, "172.18.0.2"))
	d := newDesk(t, &engine)
	targets := d.afterInstall()
	targets["install"], targets["delete"] = d.Install, d.Delete
	targets["plan"] = func(ctx context.Context) error { return d.Plan(ctx, "install") }
	for name, target := range targets {
		refused(t, name, target(t.Context()), problem.ClusterForeign, "ambient", "SM_CLUSTER")
	}
	if err := d.Status(t.Context()); err != nil {
		t.Error(err)
	}
	says(t, "status", d.out.String(), "foreign")
	says(t, "what status says", d.talk.String(), "neither uses nor deletes")
	if gone := engine.Removed(); len(gone) > 0 {
		t.Errorf("removed %v", gone)
	}
}

// TestUnfinishedKindCluster: what sm:install has to finish or to start is said so.
func TestUnfinishedKindCluster(t *testing.T) {
	mark := node.Mark{Lab: "ambient"}.MountPoint()
	half := nodeContainer("ambient", "ambient-control-plane", node.ControlPlane, "172.18.0.2", mark)
	stopped := half
	stopped.Stopped, stopped.Files = true, []string{"/etc/ambientlab/complete"}
	for _, c := range []struct {
		name string
		node dockertest.Container
		kind problem.Kind
		says string
	}{
		{"half-created", half, problem.ClusterNone, "did not finish"},
		{"stopped", stopped, problem.ClusterStopped, "is stopped"},
	} {
		t.Run(c.name, func(t *testing.T) {
			engine := newEngine(c.node)
			d := newDesk(t, &engine)
			refused(t, "apps", d.Apps(t.Context(), false), c.kind, c.says, "mage sm:install")
			if err := d.Status(t.Context()); err != nil {
				t.Error(err)
			}
			says(t, "status", d.out.String(), c.name)
			says(t, "what status says", d.talk.String(), "mage sm:install")
		})
	}
}

// TestRefusedBeforeTouching: what is wrong in a file is found before there is a cluster.
func TestRefusedBeforeTouching(t *testing.T) {
	write := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	const head = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n"
	for _, c := range []struct {
		name, setting, value string
		kind                 problem.Kind
		says                 string
	}{
		{
			"another profile", "SM_ISTIO_VALUES", write("values.yaml", "istiod: {profile: default}"),
			problem.SettingInvalid, "SM_ISTIO_VALUES",
		},
		{
			"a revision", "SM_ISTIO_VALUES", write("values.yaml", "istiod: {revision: canary}"), problem.SettingInvalid,
			"istiod.revision=canary",
		},
		{
			"another cluster domain", "SM_ISTIO_VALUES",
			write("values.yaml", "istiod: {global: {proxy: {clusterDomain: example.org}}}"), problem.SettingInvalid,
			"clusterDomain=example.org",
		},
		{
			"a retired registry", "SM_ISTIO_VALUES", write("values.yaml", "cni: {global: {hub: gcr.io/istio-release}}"),
			problem.SettingInvalid, "gcr.io/istio-release",
		},
		{
			"a field unknown to kind", "SM_KIND_CONFIG",
			write("kind.yaml", head+"nodes: [{role: control-plane, imgae: x}]"), problem.SettingInvalid, "imgae",
		},
		{
			"a role unknown to kind", "SM_KIND_CONFIG", write("kind.yaml", head+"nodes: [{role: master}]"),
			problem.SettingInvalid, "SM_KIND_CONFIG",
		},
		{
			"an old node image in the file", "SM_KIND_CONFIG",
			write("kind.yaml", head+"nodes: [{image: 'kindest/node:v1.31.4@sha256:0123'}]"), problem.ClusterVersion,
			"v1.31.4",
		},
		{"an old node image", "SM_NODE_IMAGE", "kindest/node:v1.31.4", problem.ClusterVersion, "1.32 to 1.36"},
		{"a new node image", "SM_NODE_IMAGE", "localhost:5000/node:v1.37.0", problem.ClusterVersion, "1.32 to 1.36"},
	} {
		t.Run(c.name, func(t *testing.T) {
			engine := newEngine()
			d := newDesk(t, &engine, c.setting+"="+c.value)
			refused(t, "install", d.Install(t.Context()), c.kind, c.says)
			d.noStep(t)
		})
	}
}
