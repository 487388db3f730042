package lab

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/ui"
)

// bench is a lab on an embedded control plane of the test's own.
type bench struct {
	*Lab
	t    *testing.T
	out  *bytes.Buffer
	talk *bytes.Buffer
}

// newBench describes one; the control plane is removed when the test ends.
func newBench(t *testing.T, name string, settings ...string) *bench {
	t.Helper()
	dir := t.TempDir()
	env := map[string]string{
		"SM_PROVIDER": ProviderEmbedded, "SM_CLUSTER": name, "SM_ADDONS": "none", "SM_TIMEOUT": "20m",
		"KUBECONFIG": filepath.Join(dir, "kubeconfig"),
	}
	for _, setting := range settings {
		key, value, _ := strings.Cut(setting, "=")
		env[key] = value
	}
	loaded, err := Load(func(key string) string { return env[key] })
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{t: t, out: &bytes.Buffer{}, talk: &bytes.Buffer{}}
	view := ui.New(ui.Kind("plain"), b.talk, func(key string) string { return env[key] })
	b.Lab, err = New(loaded, b.out, view)
	if err != nil {
		t.Fatal(err)
	}
	b.stateDir = filepath.Join(dir, "state")
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
		defer cancel()
		if err := b.Delete(ctx); err != nil {
			t.Error(err)
		}
		view.Close()
		if t.Failed() {
			t.Logf("talk:\n%s\nout:\n%s", b.talk, b.out)
		}
	})
	return b
}

// do runs a target and gives what it printed on stdout.
func (b *bench) do(name string, target func(context.Context) error) string {
	b.t.Helper()
	b.out.Reset()
	start := time.Now()
	if err := target(b.t.Context()); err != nil {
		b.t.Fatalf("%s: %v", name, err)
	}
	b.t.Logf("%s took %s", name, time.Since(start).Round(10*time.Millisecond))
	return b.out.String()
}

// TestEmbeddedFlow takes a lab from nothing to every lesson and back.
func TestEmbeddedFlow(t *testing.T) {
	b := newBench(t, "flow")
	b.do("install", b.Install)
	b.do("again", b.Install)
	t.Log(b.do("status", b.Status))
	b.do("apps", func(ctx context.Context) error { return b.Apps(ctx, false) })
	b.do("waypoint", func(ctx context.Context) error { return b.Waypoint(ctx, false) })
	b.do("fault", func(ctx context.Context) error { return b.Fault(ctx, DefaultFault(), false) })
	b.do("authz", func(ctx context.Context) error { return b.Authz(ctx, AuthzOptions{}, false) })
	t.Log(b.do("proxyconfig", func(ctx context.Context) error { return b.ProxyConfig(ctx, "") }))
	t.Log(b.do("verify", func(ctx context.Context) error { return b.Verify(ctx, t.TempDir()) }))
	b.do("authz off", func(ctx context.Context) error { return b.Authz(ctx, AuthzOptions{}, true) })
	b.do("fault off", func(ctx context.Context) error { return b.Fault(ctx, DefaultFault(), true) })
	b.do("waypoint off", func(ctx context.Context) error { return b.Waypoint(ctx, true) })
	b.do("apps off", func(ctx context.Context) error { return b.Apps(ctx, true) })
}
