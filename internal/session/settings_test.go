package session

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/cluster"
	"ambientlab/internal/problem"
	"ambientlab/internal/ui"
)

func env(pairs ...string) func(string) string {
	values := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		values[pairs[i]] = pairs[i+1]
	}
	return func(name string) string { return values[name] }
}

func TestLoadDefaults(t *testing.T) {
	s, err := Load(env())
	if err != nil {
		t.Fatal(err)
	}
	if s.Provider != "" || s.Cluster != "ambient" || s.Namespace != "default" || s.Workers != 2 ||
		s.Timeout != 30*time.Minute {
		t.Errorf("defaults are %+v", s)
	}
	if got := strings.Join(s.Addons, ","); got != "prometheus,grafana,jaeger,kiali" {
		t.Errorf("add-ons are %q", got)
	}
}

func TestLoadProvider(t *testing.T) {
	for _, c := range []struct{ legacy, provider, want string }{
		{"", "", ""},
		{"y", "", cluster.ProviderKind},
		{"n", "", cluster.ProviderExisting},
		{"", "embedded", cluster.ProviderEmbedded},
		{"", "auto", ProviderAuto},
		{"n", "auto", cluster.ProviderExisting},
		{"n", "existing", cluster.ProviderExisting},
	} {
		s, err := Load(env("INSTALL_KIND", c.legacy, "SM_PROVIDER", c.provider))
		if err != nil || s.Provider != c.want {
			t.Errorf("INSTALL_KIND=%q SM_PROVIDER=%q: got %q, %v; want %q", c.legacy, c.provider, s.Provider, err,
				c.want)
		}
	}
}

func TestLoadRefuses(t *testing.T) {
	for _, c := range []struct{ name, value, says string }{
		{"INSTALL_KIND", "maybe", "y (a kind cluster)"},
		{"SM_PROVIDER", "minikube", "kind, existing or embedded"},
		{"SM_CLUSTER", "Ambient", "DNS label"},
		{"SM_CLUSTER", strings.Repeat("a", 41), "at most 40"},
		{"SM_NAMESPACE", "kube-system", "for the applications"},
		{"SM_NAMESPACE", "a_b", "namespace's name"},
		{"SM_WORKERS", "ten", "0 to 9"},
		{"SM_WORKERS", "10", "0 to 9"},
		{"SM_NODE_IMAGE", "; rm -rf", "image reference"},
		{"SM_ADDONS", "prometheus,zipkin", "prometheus, grafana, jaeger, kiali"},
		{"SM_METALLB", "maybe", "auto, on or off"},
		{"SM_TIMEOUT", "5", "duration"},
		{"SM_TIMEOUT", "1s", "at least 10s"},
		{"SM_OUTPUT", "xml", "auto, plain, json, github or gitlab"},
		{"SM_BUNDLE", "/does/not/exist", "exists"},
		{"SM_REGISTRY_MIRROR", "mirror.example.com", "a URL"},
		{"SM_REGISTRY_MIRROR", "http://127.0.0.1:5000", "the node itself"},
		{"SM_REGISTRY_MIRROR", "https://m.example.com/?a=b", "a URL"},
		{"SM_REPORT", "/etc/hostname", "a folder"},
		{"SM_DUMP", "/etc/hostname", "a folder"},
		{"SM_RESERVE", "x", "a duration"},
	} {
		_, err := Load(env(c.name, c.value))
		if !problem.Is(err, problem.SettingInvalid) {
			t.Errorf("%s=%q: got %v, want a refusal", c.name, c.value, err)
			continue
		}
		for _, part := range []string{c.name, c.value, c.says} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%s=%q: %q does not say %q", c.name, c.value, err, part)
			}
		}
	}
}

func TestLoadReportsEveryFault(t *testing.T) {
	_, err := Load(env("SM_WORKERS", "x", "SM_OUTPUT", "y"))
	if err == nil || !strings.Contains(err.Error(), "SM_WORKERS") || !strings.Contains(err.Error(), "SM_OUTPUT") {
		t.Errorf("got %v, want both variables named", err)
	}
}

func TestLoadContradiction(t *testing.T) {
	file := t.TempDir()
	for _, c := range []struct {
		settings []string
		says     []string
	}{
		{[]string{"INSTALL_KIND", "y", "SM_PROVIDER", "existing"}, []string{"SM_PROVIDER=existing", "INSTALL_KIND=y"}},
		{[]string{"INSTALL_KIND", "n", "SM_KIND_CONFIG", file}, []string{"SM_KIND_CONFIG", "existing"}},
		{[]string{"SM_WORKERS", "3", "SM_KIND_CONFIG", file}, []string{"SM_WORKERS=3", "SM_KIND_CONFIG=" + file}},
		{[]string{"SM_WORKERS", "2", "SM_KIND_CONFIG", file}, []string{"SM_WORKERS=2"}}, // the default, but asked for
		{[]string{"SM_WORKERS", "x", "SM_KIND_CONFIG", file}, []string{"0 to 9", "both say"}},
		{[]string{"SM_RESERVE", "15m", "SM_TIMEOUT", "10m"}, []string{"SM_RESERVE=15m", "SM_TIMEOUT=10m"}},
		{[]string{"SM_REGISTRY_CA", "/etc/hostname"}, []string{"SM_REGISTRY_MIRROR, which is not set"}},
	} {
		_, err := Load(env(c.settings...))
		if !problem.Is(err, problem.SettingConflict) {
			t.Errorf("%v: got %v, want a conflict", c.settings, err)
			continue
		}
		for _, part := range c.says {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%v: %q does not say %q", c.settings, err, part)
			}
		}
	}
	if _, err := Load(env("SM_KIND_CONFIG", file)); err != nil {
		t.Errorf("a kind configuration alone: %v", err)
	}
}

func TestDocumented(t *testing.T) {
	for _, s := range Documented() {
		if s.Env == "" || s.Default == "" || s.Help == "" || s.Accepts == "" {
			t.Errorf("%+v is not documented whole", s)
		}
	}
}

func TestNodeImages(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kind.yaml")
	text := "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes: [{role: control-plane}, {role: worker, image: " +
		"'kindest/node:v1.35.1'}]\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		settings []string
		want     string
	}{
		{nil, DefaultNodeImage},
		{[]string{"SM_NODE_IMAGE=mine:1"}, "mine:1"},
		{[]string{"SM_KIND_CONFIG=" + path}, DefaultNodeImage + " kindest/node:v1.35.1"},
		{[]string{"SM_KIND_CONFIG=" + path, "SM_NODE_IMAGE=mine:1"}, "mine:1"},
	} {
		e, err := New(must(t, c.settings), io.Discard, ui.New(ui.Plain, io.Discard, env()))
		if err != nil {
			t.Fatal(err)
		}
		got, err := e.Settings.NodeImages(e.usualNodeImage())
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%v: got %v, %v; want %s", c.settings, got, err, c.want)
		}
	}
}

// must loads settings, each NAME=value.
func must(t *testing.T, settings []string) Settings {
	t.Helper()
	var pairs []string
	for _, setting := range settings {
		name, value, _ := strings.Cut(setting, "=")
		pairs = append(pairs, name, value)
	}
	loaded, err := Load(env(pairs...))
	if err != nil {
		t.Fatal(err)
	}
	return loaded
}
