package cluster

import (
	"context"
	"slices"
	"strings"
	"testing"

	"k8s.io/client-go/rest"

	"ambientlab/internal/node"
	"ambientlab/internal/problem"
	"ambientlab/specs"
)

const head = "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n"

func TestCheckConfig(t *testing.T) {
	for _, tt := range []struct{ name, config, says string }{
		{name: "the lab's own", config: threeNodes},
		{name: "no nodes", config: head},
		{name: "a node without a role", config: head + "nodes: [{image: kindest/node:v1.35.0}]"},
		{name: "empty", config: "\n", says: "empty"},
		{name: "not YAML", config: "nodes: [", says: "does not accept"},
		{name: "an unknown field", config: head + "nodes: [{role: worker, imgae: x}]", says: "imgae"},
		{name: "an unknown version", config: "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha9\n", says: "v1alpha9"},
		{name: "no version", config: "nodes: [{role: control-plane}]", says: "accepted: kind.x-k8s.io/v1alpha4"},
		{name: "an unknown role", config: head + "nodes: [{role: master}]", says: `nodes[0] has role "master"`},
		{name: "no CNI plug-in", config: head + "networking: {disableDefaultCNI: true}", says: "disableDefaultCNI"},
		{name: "no kube-proxy", config: head + "networking: {kubeProxyMode: none}", says: "kubeProxyMode: none"},
		{
			name:   "kube-proxy skipped",
			config: head + "kubeadmConfigPatches: [\"kind: InitConfiguration\\nskipPhases: [addon/kube-proxy]\"]",
			says:   "addon/kube-proxy",
		},
		{
			name: "CoreDNS skipped on a node",
			config: head + "nodes: [{role: control-plane, kubeadmConfigPatches: [\"kind: " +
				"InitConfiguration\\nskipPhases: [addon/coredns]\"]}]", says: "addon/coredns",
		},
		{
			name:   "another phase skipped",
			config: head + "kubeadmConfigPatches: [\"kind: InitConfiguration\\nskipPhases: [preflight]\"]",
		},
		{name: "IPv6 only", config: head + "networking: {ipFamily: ipv6}", says: "accepted: ipv4 and dual"},
		{name: "both families", config: head + "networking: {ipFamily: dual, kubeProxyMode: nftables}"},
		{name: "workers only", config: head + "nodes: [{role: worker}]", says: "no node of role control-plane"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := CheckConfig([]byte(tt.config))
			if tt.says == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !problem.Is(err, problem.SettingInvalid) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want a refusal saying %q", err, tt.says)
			}
			if advice := problem.All(err)[0].Advice; !strings.Contains(strings.Join(advice, " "), "SM_KIND_CONFIG") {
				t.Errorf("advice: %v", advice)
			}
		})
	}
}

func TestWithNodeImage(t *testing.T) {
	config, err := WithNodeImage([]byte(head+"nodes: [{role: control-plane}, {role: worker, image: theirs}]"), "ours")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := NodeImages(config); err != nil || !slices.Equal(got, []string{"ours", "theirs"}) {
		t.Errorf("got %v, %v; the image that the configuration names is kept", got, err)
	}
}

// TestKindVersion wants the version checked that a node image brought, after the create as before.
func TestKindVersion(t *testing.T) {
	f := newFixture(t)
	step := Step(f.kind, "cluster", 0)
	if err := step.Do(t.Context()); err != nil {
		t.Fatal(err)
	}
	if status, err := step.Check(t.Context()); err != nil || !status.Done {
		t.Errorf("%+v, %v", status, err)
	}
	f.kind.look = func(context.Context, *rest.Config) (string, string, error) { return "v1.31.4", "", nil }
	if status, err := step.Check(t.Context()); !problem.Is(err, problem.ClusterVersion) || status.Done ||
		!strings.Contains(err.Error(), "v1.31.4") {
		t.Errorf("%+v, %v", status, err)
	}
}

// Only the lab's own configuration makes the gateway's node port the lab's, and one of the user's that publishes it.
func TestGatewayNodePort(t *testing.T) {
	own, err := specs.Render(
		"kind.yaml",
		map[string]any{
			"Workers":         1,
			"WorkerList":      make([]struct{}, 1),
			"CgroupV1":        false,
			"GatewayNodePort": node.GatewayPort,
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckConfig(own); err != nil {
		t.Errorf("kind refuses the lab's own configuration: %v", err)
	}
	for config, want := range map[string]int{
		string(own): node.GatewayPort,
		"":          0,
		"nodes: [{role: control-plane, extraPortMappings: [{containerPort: 80}]}]":                    0,
		"nodes: [{role: control-plane}, {role: worker, extraPortMappings: [{containerPort: 30042}]}]": node.GatewayPort,
	} {
		kind := NewKind(KindOptions{Name: "x", Config: []byte(config), LockDir: t.TempDir()})
		if got := kind.Traits().GatewayNodePort; got != want {
			t.Errorf("%q: got %d, want %d", config, got, want)
		}
	}
}

func TestWithRegistryHosts(t *testing.T) {
	got, err := WithRegistryHosts([]byte("kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\n"+
		"containerdConfigPatches: ['# mine']\n"), "/etc/containerd/certs.d")
	if err != nil {
		t.Fatal(err)
	}
	if err := CheckConfig(got); err != nil {
		t.Error(err)
	}
	for _, want := range []string{
		"# mine", `[plugins."io.containerd.cri.v1.images".registry]`,
		`config_path = "/etc/containerd/certs.d"`,
	} {
		if !strings.Contains(string(got), want) {
			t.Errorf("%s is not in\n%s", want, got)
		}
	}
}
