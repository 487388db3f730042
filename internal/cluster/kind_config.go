package cluster

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	strictyaml "go.yaml.in/yaml/v3"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// withMark adds the lab's mark to every node of kind's configuration. It works on the untyped document, so that kind's
// own strict reading still sees, and refuses, every field it does not know.
func withMark(config []byte, mark node.Mark) ([]byte, error) {
	doc, nodes, err := parseConfig(config)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		mounts, _ := n["extraMounts"].([]any)
		n["extraMounts"] = append(mounts, map[string]any{
			"hostPath":      node.MarkSource,
			"containerPath": mark.MountPoint(),
			"readOnly":      true,
		})
	}
	out, err := yaml.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("writing kind's configuration: %w", err)
	}
	return out, nil
}

// roles counts the nodes of kind's configuration by role.
func roles(config []byte) (map[string]int, error) {
	_, nodes, err := parseConfig(config)
	if err != nil {
		return nil, err
	}
	count := make(map[string]int)
	for _, n := range nodes {
		role, _ := n["role"].(string)
		if role == "" {
			role = node.ControlPlane // kind's default
		}
		count[role]++
	}
	return count, nil
}

// WithNodeImage gives image to the nodes for which kind's configuration names none. Those that it names are kept, which
// kind's own way (`--image`) would override.
func WithNodeImage(config []byte, image string) ([]byte, error) {
	doc, nodes, err := parseConfig(config)
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		if named, _ := n["image"].(string); named == "" {
			n["image"] = image
		}
	}
	out, err := yaml.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("writing kind's configuration: %w", err)
	}
	return out, nil
}

// WithRegistryHosts makes containerd in the nodes of kind's configuration read a folder that says from where to pull
// (containerd, docs/hosts.md).
func WithRegistryHosts(config []byte, folder string) ([]byte, error) {
	doc, _, err := parseConfig(config)
	if err != nil {
		return nil, err
	}
	patches, _ := doc["containerdConfigPatches"].([]any)
	doc["containerdConfigPatches"] = append(patches,
		fmt.Sprintf("[plugins.%q.registry]\n  config_path = %q\n", "io.containerd.cri.v1.images", folder))
	out, err := yaml.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("writing kind's configuration: %w", err)
	}
	return out, nil
}

// CheckConfig refuses a configuration that kind would refuse: kind reads it only after the node images were pulled.
// kind's own reading is internal (kind, pkg/internal/apis/config/encoding/load.go and validate.go); this is the part of
// it that people get wrong: unknown versions, fields and roles, and no control plane.
func CheckConfig(config []byte) error {
	if len(bytes.TrimSpace(config)) == 0 {
		return badConfig(nil, "kind's configuration is empty")
	}
	var cluster v1alpha4.Cluster
	strict := strictyaml.NewDecoder(bytes.NewReader(config))
	strict.KnownFields(true)
	if err := strict.Decode(&cluster); err != nil {
		return badConfig(err, "kind does not accept its configuration")
	}
	if cluster.APIVersion != "kind.x-k8s.io/v1alpha4" || cluster.Kind != "Cluster" {
		return badConfig(
			nil, "kind's configuration has apiVersion %q and kind %q; accepted: kind.x-k8s.io/v1alpha4 and Cluster",
			cluster.APIVersion, cluster.Kind,
		)
	}
	v1alpha4.SetDefaultsCluster(&cluster)
	controlPlanes := 0
	for i, n := range cluster.Nodes {
		switch n.Role {
		case v1alpha4.ControlPlaneRole:
			controlPlanes++
		case v1alpha4.WorkerRole:
		default:
			return badConfig(nil, "kind's configuration: nodes[%d] has role %q; accepted: control-plane and worker", i,
				n.Role)
		}
	}
	if controlPlanes == 0 {
		return badConfig(nil, "kind's configuration has no node of role control-plane")
	}
	return checkNetworking(cluster)
}

// checkNetworking refuses clusters whose nodes or pods stay not ready until the user adds something, and those without
// the IPv4 addresses that the lab's load balancers need.
func checkNetworking(cluster v1alpha4.Cluster) error {
	var missing string
	switch patches := kubeadmPatches(cluster); {
	case cluster.Networking.DisableDefaultCNI:
		missing = "networking.disableDefaultCNI leaves the nodes without a CNI plug-in, so they do not become ready"
	case cluster.Networking.KubeProxyMode == v1alpha4.ProxyMode(noProxyMode):
		missing = "networking.kubeProxyMode: none leaves the cluster without kube-proxy, so no Service has endpoints"
	case skipsPhase.MatchString(patches):
		missing = fmt.Sprintf("a kubeadmConfigPatch skips %s, which the cluster needs", skipsPhase.FindString(patches))
	case cluster.Networking.IPFamily == v1alpha4.IPv6Family:
		return badConfig(
			nil,
			"kind's configuration: networking.ipFamily is ipv6; accepted: ipv4 and dual, "+
				"because the lab's load balancers have IPv4 addresses",
		)
	default:
		return nil
	}
	return problem.New(problem.SettingInvalid, nil, "kind's configuration: %s", missing).
		With("Remove it from the file that SM_KIND_CONFIG names; or create that cluster yourself with `kind create " +
			"cluster`, install what is missing, and set INSTALL_KIND=n to use it.")
}

// noProxyMode is kind's value for a cluster without kube-proxy (kind, pkg/internal/apis/config/types.go); v1alpha4 has
// no name for it.
const noProxyMode = "none"

// skipsPhase matches kubeadm's add-on phases in a patch (kubeadm init --help, skipPhases).
var skipsPhase = regexp.MustCompile(`\baddon(/(kube-proxy|coredns|all))?\b`)

func kubeadmPatches(cluster v1alpha4.Cluster) string {
	all := slices.Clone(cluster.KubeadmConfigPatches)
	for _, n := range cluster.Nodes {
		all = append(all, n.KubeadmConfigPatches...)
	}
	var skipping []string
	for _, patch := range all {
		if strings.Contains(patch, "skipPhases") {
			skipping = append(skipping, patch)
		}
	}
	return strings.Join(skipping, "\n")
}

// NodeImages lists the node images the configuration names, in order, each once.
func NodeImages(config []byte) ([]string, error) {
	_, nodes, err := parseConfig(config)
	if err != nil {
		return nil, err
	}
	var refs []string
	seen := make(map[string]bool)
	for _, n := range nodes {
		if ref, _ := n["image"].(string); ref != "" && !seen[ref] {
			seen[ref] = true
			refs = append(refs, ref)
		}
	}
	return refs, nil
}

// parseConfig gives the document and the nodes in it; an empty one gets the single control plane that kind would give
// it.
func parseConfig(config []byte) (map[string]any, []map[string]any, error) {
	doc := make(map[string]any)
	if err := yaml.Unmarshal(config, &doc); err != nil {
		return nil, nil, badConfig(err, "kind's configuration is not valid YAML")
	}
	if len(doc) == 0 {
		doc = map[string]any{"kind": "Cluster", "apiVersion": "kind.x-k8s.io/v1alpha4"}
	}
	list, ok := doc["nodes"].([]any)
	if doc["nodes"] != nil && !ok {
		return nil, nil, badConfig(nil, "kind's configuration: nodes is not a list")
	}
	if len(list) == 0 {
		list = []any{map[string]any{"role": node.ControlPlane}}
		doc["nodes"] = list
	}
	nodes := make([]map[string]any, 0, len(list))
	for i, item := range list {
		n, ok := item.(map[string]any)
		if !ok {
			return nil, nil, badConfig(nil, "kind's configuration: nodes[%d] is not a mapping", i)
		}
		nodes = append(nodes, n)
	}
	return doc, nodes, nil
}

func badConfig(err error, format string, args ...any) error {
	return problem.New(problem.SettingInvalid, err, format, args...).With("Correct the file that SM_KIND_CONFIG names.")
}
