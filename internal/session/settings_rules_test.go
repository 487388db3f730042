package session

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/cluster"
	"ambientlab/internal/problem"
)

// Each variable at the edges of what it accepts: the value that it then has, or that it is refused.
func TestValuesAtTheirEdges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	forty := strings.Repeat("a", 40)
	for _, c := range []struct {
		name, value string
		read        func(Settings) any
		want        any // nil: refused
	}{
		{"SM_CLUSTER", "a", func(s Settings) any { return s.Cluster }, "a"},
		{"SM_CLUSTER", "my-lab-2", func(s Settings) any { return s.Cluster }, "my-lab-2"},
		{"SM_CLUSTER", forty, func(s Settings) any { return s.Cluster }, forty},
		{"SM_CLUSTER", forty + "a", nil, nil},
		{"SM_CLUSTER", "-a", nil, nil},
		{"SM_CLUSTER", "a-", nil, nil},
		{"SM_CLUSTER", "a.b", nil, nil},
		{"SM_NAMESPACE", "apps", func(s Settings) any { return s.Namespace }, "apps"},
		{"SM_NAMESPACE", "kubernetes", func(s Settings) any { return s.Namespace }, "kubernetes"},
		{"SM_NAMESPACE", "kube-public", nil, nil},
		{"SM_NAMESPACE", "istio-system", nil, nil},
		{"SM_NAMESPACE", "metallb-system", nil, nil},
		{"SM_NAMESPACE", "Apps", nil, nil},
		{"SM_WORKERS", "0", func(s Settings) any { return s.Workers }, 0},
		{"SM_WORKERS", "9", func(s Settings) any { return s.Workers }, 9},
		{"SM_WORKERS", "-1", nil, nil},
		{"SM_WORKERS", "10", nil, nil},
		{"SM_WORKERS", "1.5", nil, nil},
		{
			"SM_NODE_IMAGE", "kindest/node:v1.36.0@sha256:0a", func(s Settings) any { return s.NodeImage },
			"kindest/node:v1.36.0@sha256:0a",
		},
		{"SM_NODE_IMAGE", "-v", nil, nil},
		{"SM_NODE_IMAGE", "a b", nil, nil},
		{"SM_TIMEOUT", "10s", func(s Settings) any { return s.Timeout }, 10 * time.Second},
		{"SM_TIMEOUT", "2h", func(s Settings) any { return s.Timeout }, 2 * time.Hour},
		{"SM_TIMEOUT", "9.999s", nil, nil},
		{"SM_TIMEOUT", "-10s", nil, nil},
		{"SM_OUTPUT", "json", func(s Settings) any { return s.Output }, "json"},
		{"SM_OUTPUT", "JSON", nil, nil},
		{"SM_METALLB", "off", func(s Settings) any { return s.MetalLB }, "off"},
		{"SM_METALLB", "no", nil, nil},
		{"SM_ADDONS", "none", func(s Settings) any { return len(s.Addons) }, 0},
		{"SM_ADDONS", " none ", func(s Settings) any { return len(s.Addons) }, 0},
		{
			"SM_ADDONS", "kiali, prometheus", func(s Settings) any { return strings.Join(s.Addons, " ") },
			"prometheus kiali",
		},
		{"SM_ADDONS", "jaeger jaeger", func(s Settings) any { return strings.Join(s.Addons, " ") }, "jaeger"},
		{"SM_ADDONS", "none,kiali", nil, nil},
		{"SM_ISTIO_VALUES", file, func(s Settings) any { return s.IstioValues }, file},
		{"SM_ISTIO_VALUES", file + ".not", nil, nil},
		{"SM_MANIFESTS", file, func(s Settings) any { return s.Manifests }, file},
		{"SM_BUNDLE", file, func(s Settings) any { return s.Bundle }, file},
		{"SM_REGISTRY_MIRROR", "http://10.0.0.1:5", func(s Settings) any { return s.Mirror }, "http://10.0.0.1:5"},
		{"SM_REGISTRY_MIRROR", "https://m.example", func(s Settings) any { return s.Mirror }, "https://m.example"},
		{"SM_REGISTRY_MIRROR", "ftp://m.example.com", nil, nil},
		{"SM_REGISTRY_MIRROR", "https://m.example.com/#a", nil, nil},
		{"SM_REGISTRY_MIRROR", "ftp://ada:secret-1@m.example.com", nil, nil},
		{"SM_REGISTRY_MIRROR", "https://ada:secret-1@m.example.com:port", nil, nil}, // no URL at all
		{"SM_REGISTRY_MIRROR", "http://localhost:5000", nil, nil},
	} {
		s, err := Load(env(c.name, c.value))
		switch {
		case c.want == nil && !problem.Is(err, problem.SettingInvalid):
			t.Errorf("%s=%q: %v, want a refusal", c.name, c.value, err)
		case c.want == nil && strings.Contains(err.Error(), "secret-1"):
			t.Errorf("the password of %s is shown: %v", c.name, err)
		case c.want != nil && (err != nil || c.read(s) != c.want):
			t.Errorf("%s=%q: %+v, %v; want %v", c.name, c.value, s, err, c.want)
		}
	}
}

// A relative path is kept as an absolute one: a target may run in another folder than the one where it was typed.
func TestPathsAreAbsolute(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("values.yaml", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Load(env("SM_ISTIO_VALUES", "values.yaml"))
	if err != nil || !filepath.IsAbs(s.IstioValues) || filepath.Base(s.IstioValues) != "values.yaml" {
		t.Errorf("%q, %v", s.IstioValues, err)
	}
}

// Every way to write INSTALL_KIND, alone and together with SM_PROVIDER.
func TestInstallKind(t *testing.T) {
	means := map[string]string{
		"": "", "y": cluster.ProviderKind, "Y": cluster.ProviderKind, "yes": cluster.ProviderKind,
		"true": cluster.ProviderKind,
		"n":    cluster.ProviderExisting, "N": cluster.ProviderExisting, "no": cluster.ProviderExisting,
		"false": cluster.ProviderExisting,
	}
	for value, provider := range means {
		if s, err := Load(env("INSTALL_KIND", value)); err != nil || s.Provider != provider {
			t.Errorf("INSTALL_KIND=%q: %q, %v; want %q", value, s.Provider, err, provider)
		}
		for _, choice := range []string{cluster.ProviderKind, cluster.ProviderExisting, cluster.ProviderEmbedded} {
			s, err := Load(env("INSTALL_KIND", value, "SM_PROVIDER", choice))
			contradicts := provider != "" && provider != choice
			if got := problem.Is(err, problem.SettingConflict); got != contradicts || s.Provider != choice {
				t.Errorf("INSTALL_KIND=%q SM_PROVIDER=%s: %q, %v; want a conflict: %v", value, choice, s.Provider, err,
					contradicts)
			}
		}
	}
	if _, err := Load(env("INSTALL_KIND", "kind")); !problem.Is(err, problem.SettingInvalid) {
		t.Errorf("INSTALL_KIND=kind: %v", err)
	}
}

// SM_KIND_CONFIG goes with the kind provider only, and SM_PACKETS and SM_ZTUNNEL with the embedded one. A provider that
// is still to be chosen may be either.
func TestSettingsOfAnotherProvider(t *testing.T) {
	folder := t.TempDir()
	for setting, of := range map[[2]string]string{
		{"SM_KIND_CONFIG", folder}: cluster.ProviderKind,
		{"SM_PACKETS", "on"}:       cluster.ProviderEmbedded,
		{"SM_PACKETS", "off"}:      cluster.ProviderEmbedded,
		{"SM_PACKETS", "auto"}:     "every provider",
		{"SM_ZTUNNEL", folder}:     cluster.ProviderEmbedded,
	} {
		for _, provider := range []string{
			"", cluster.ProviderKind, cluster.ProviderExisting, cluster.ProviderEmbedded,
		} {
			_, err := Load(env("SM_PROVIDER", provider, setting[0], setting[1]))
			refused := provider != "" && provider != of && of != "every provider"
			if got := problem.Is(err, problem.SettingConflict); got != refused || refused != (err != nil) {
				t.Errorf("SM_PROVIDER=%q %s=%s: %v, want a conflict: %v", provider, setting[0], setting[1], err,
					refused)
			}
		}
	}
}

// A step has a third of the target's time and at least ten minutes, one that waits for no pod a fifteenth and at least
// two.
func TestStepsFollowTheTimeout(t *testing.T) {
	for timeout, want := range map[time.Duration][2]time.Duration{
		10 * time.Second: {10 * time.Minute, 2 * time.Minute},
		30 * time.Minute: {10 * time.Minute, 2 * time.Minute},
		45 * time.Minute: {15 * time.Minute, 3 * time.Minute},
		2 * time.Hour:    {40 * time.Minute, 8 * time.Minute},
	} {
		s := Settings{Timeout: timeout}
		if got := [2]time.Duration{s.StepTimeout(), s.ShortStepTimeout()}; got != want {
			t.Errorf("SM_TIMEOUT=%s: steps have %v, want %v", timeout, got, want)
		}
	}
}

// The lab writes to the first file of KUBECONFIG, as kubectl does.
func TestKubeconfigFile(t *testing.T) {
	list := strings.Join([]string{"/a/config", "/b/config"}, string(filepath.ListSeparator))
	for value, want := range map[string]string{"/a/config": "/a/config", list: "/a/config"} {
		if got := (Settings{Kubeconfig: value}).KubeconfigFile(); got != want {
			t.Errorf("KUBECONFIG=%s: %s, want %s", value, got, want)
		}
	}
	if got := (Settings{}).KubeconfigFile(); !strings.HasSuffix(got, filepath.Join(".kube", "config")) {
		t.Errorf("without KUBECONFIG: %s", got)
	}
}

// Two invalid values and a conflict are three sentences, and invalid values come first.
func TestEveryFaultIsNamed(t *testing.T) {
	_, err := Load(env("SM_WORKERS", "x", "SM_OUTPUT", "y", "SM_PROVIDER", cluster.ProviderKind, "INSTALL_KIND", "n"))
	var ids []string
	for _, p := range problem.All(err) {
		ids = append(ids, p.ID)
	}
	if want := []string{problem.SettingInvalid.ID, problem.SettingConflict.ID}; !slices.Equal(ids, want) {
		t.Errorf("%v, want %v", ids, want)
	}
	if _, err := Load(env()); err != nil {
		t.Errorf("no variables: %v", err)
	}
}

// What is kept of SM_TIMEOUT for the dump is at most half of it, and a value that leaves nothing is refused.
func TestReserve(t *testing.T) {
	for _, c := range []struct {
		variables []string
		want      time.Duration // 0: refused
	}{
		{nil, 90 * time.Second},
		{[]string{"SM_RESERVE", "10s"}, 10 * time.Second},
		{[]string{"SM_TIMEOUT", "60s"}, 30 * time.Second},
		{[]string{"SM_TIMEOUT", "90s"}, 45 * time.Second},
		{[]string{"SM_TIMEOUT", "60s", "SM_RESERVE", "59s"}, 30 * time.Second},
		{[]string{"SM_TIMEOUT", "60s", "SM_RESERVE", "60s"}, 0},
	} {
		s, err := Load(env(c.variables...))
		switch {
		case c.want == 0 && !problem.Is(err, problem.SettingConflict):
			t.Errorf("%v: %v, want a refusal", c.variables, err)
		case c.want != 0 && (err != nil || s.Reserve != c.want):
			t.Errorf("%v: %s, %v; want %s", c.variables, s.Reserve, err, c.want)
		}
	}
}

// A folder to write may be missing, but is no file; a CI job has a folder for dumps without a setting.
func TestFolders(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		variables    []string
		report, dump string
		refused      bool
	}{
		{},
		{variables: []string{"SM_REPORT", "new/folder"}, report: filepath.Join(dir, "new", "folder")},
		{variables: []string{"SM_REPORT", dir}, report: dir},
		{variables: []string{"SM_REPORT", "file"}, refused: true},
		{variables: []string{"SM_REPORT", "file/under"}, refused: true},
		{variables: []string{"CI", "true"}, dump: filepath.Join(dir, DefaultDump)},
		{variables: []string{"CI", "true", "SM_DUMP", "mine"}, dump: filepath.Join(dir, "mine")},
		{variables: []string{"CI", "true", "SM_DUMP", "none"}},
		{variables: []string{"CI", "false"}},
		{variables: []string{"SM_DUMP", "mine"}, dump: filepath.Join(dir, "mine")},
	} {
		s, err := Load(env(c.variables...))
		if problem.Is(err, problem.SettingInvalid) != c.refused || s.Report != c.report || s.Dump != c.dump {
			t.Errorf("%v: report %q, dump %q, %v", c.variables, s.Report, s.Dump, err)
		}
	}
	if got := (Settings{Dump: "mine"}).DumpOr("other"); got != "mine" {
		t.Error(got)
	}
	if got := (Settings{}).DumpOr("other"); got != "other" {
		t.Error(got)
	}
}
