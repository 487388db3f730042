package source

import (
	"slices"
	"strings"
	"time"
)

// Program is one program that can be built, and where its source comes from.
type Program struct {
	// Name is what Binary is asked for.
	Name string
	// Module is the folder of the nested module, relative to the modules' folder.
	Module string
	// Package is the import path of the main package.
	Package string
	// Variables are string variables set by the linker, as the project's own release build sets them.
	Variables []Variable
	// Cold is about how long it takes on two cores when the programs above it in Programs are built and nothing else
	// is; seconds once Go's build cache holds its packages.
	Cold time.Duration
}

// Variable is a string variable that the linker sets.
type Variable struct{ Name, Value string }

// Versions of what is built, as the nested modules pin them and as image references name them.
const (
	KubernetesVersion = "v1.36.3"
	istioRevision     = "eed52ebb66ad"
	istioTag          = "1.31.4"
	// jaegerVersion is the release whose code is v1.76.0 of the Go module: both are tags of one commit. The module's
	// path has no /v2, so the Go module proxy serves no tag of version 2.
	jaegerVersion = "2.13.0"
)

// Programs lists every program that Binary can build, in the order in which building them all is quickest.
func Programs() []Program {
	const (
		kube       = "k8s.io/kubernetes/cmd/"
		containerd = "github.com/containerd/containerd/v2/cmd/"
		cni        = "github.com/containernetworking/plugins/plugins/"
		istio      = "istio.io/istio/"
		metallb    = "go.universe.tf/metallb/"
	)
	return []Program{
		{"kube-apiserver", "kubernetes", kube + "kube-apiserver", kubernetesVariables(), 3 * time.Minute},
		{
			"kube-controller-manager", "kubernetes", kube + "kube-controller-manager", kubernetesVariables(),
			80 * time.Second,
		},
		{"kube-scheduler", "kubernetes", kube + "kube-scheduler", kubernetesVariables(), 10 * time.Second},
		{"kube-proxy", "kubernetes", kube + "kube-proxy", kubernetesVariables(), 15 * time.Second},
		{"kubelet", "kubernetes", kube + "kubelet", kubernetesVariables(), 45 * time.Second},
		{"kubeadm", "kubernetes", kube + "kubeadm", kubernetesVariables(), 20 * time.Second},
		{"kubectl", "kubernetes", kube + "kubectl", kubernetesVariables(), 30 * time.Second},
		{"etcd", "etcd", "go.etcd.io/etcd/server/v3", nil, 30 * time.Second},
		{"containerd", "containerd", containerd + "containerd", nil, 70 * time.Second},
		{"containerd-shim-runc-v2", "containerd", containerd + "containerd-shim-runc-v2", nil, 5 * time.Second},
		{"ctr", "containerd", containerd + "ctr", nil, 10 * time.Second},
		{"cni-ptp", "cniplugins", cni + "main/ptp", nil, 10 * time.Second},
		{"cni-bridge", "cniplugins", cni + "main/bridge", nil, 5 * time.Second},
		{"cni-loopback", "cniplugins", cni + "main/loopback", nil, 5 * time.Second},
		{"cni-host-local", "cniplugins", cni + "ipam/host-local", nil, 5 * time.Second},
		{"cni-portmap", "cniplugins", cni + "meta/portmap", nil, 5 * time.Second},
		{"coredns", "coredns", "github.com/coredns/coredns", nil, time.Minute},
		{"pilot-discovery", "istio", istio + "pilot/cmd/pilot-discovery", istioVariables(), 150 * time.Second},
		{"install-cni", "istio", istio + "cni/cmd/install-cni", istioVariables(), 15 * time.Second},
		{"istio-cni", "istio", istio + "cni/cmd/istio-cni", istioVariables(), 10 * time.Second},
		{"pilot-agent", "istio", istio + "pilot/cmd/pilot-agent", istioVariables(), 10 * time.Second},
		{"istioctl", "istio", istio + "istioctl/cmd/istioctl", istioVariables(), 30 * time.Second},
		{"metallb-controller", "metallb", metallb + "controller", nil, 4 * time.Minute},
		{"metallb-controller-loopback", "metallbloopback", metallb + "controller", nil, 15 * time.Second},
		{"metallb-speaker", "metallb", metallb + "speaker", nil, 20 * time.Second},
		{"go-httpbin", "apps", "github.com/mccutchen/go-httpbin/v2/cmd/go-httpbin", nil, 10 * time.Second},
		{"fortio", "apps", "fortio.org/fortio", nil, 30 * time.Second},
		{"nodeproxy", "../../nodeproxy", ".", nil, time.Minute},
		{"podrunner", "../../podrunner", ".", nil, 20 * time.Second},
		{"nodenet", "../nodenet", ".", nil, 40 * time.Second},
		{"pause", "../nodenet", "./pause", nil, 5 * time.Second},
		{"criseed", "../nodeimage/criseed", ".", nil, 30 * time.Second},
		{"prometheus", "prometheus", "github.com/prometheus/prometheus/cmd/prometheus", []Variable{
			{"github.com/prometheus/common/version.Version", "3.10.0"},
		}, 4 * time.Minute},
		{
			"prometheus-config-reloader", "prometheus",
			"github.com/prometheus-operator/prometheus-operator/cmd/prometheus-config-reloader", nil, time.Minute,
		},
		{"jaeger", "jaeger", "github.com/jaegertracing/jaeger/cmd/jaeger", []Variable{
			{"github.com/jaegertracing/jaeger/internal/version.latestVersion", "v" + jaegerVersion},
		}, 3 * time.Minute},
	}
}

// kubernetesVariables are the ones that hack/lib/version.sh of Kubernetes sets: kubeadm refuses to work without a
// version, and the date is that of the module's tag, so that it never changes.
func kubernetesVariables() []Variable {
	minor := strings.Split(KubernetesVersion, ".")[1]
	var vars []Variable
	for _, pkg := range []string{"k8s.io/component-base/version.", "k8s.io/client-go/pkg/version."} {
		vars = append(vars,
			Variable{pkg + "gitVersion", KubernetesVersion},
			Variable{pkg + "gitMajor", "1"},
			Variable{pkg + "gitMinor", minor},
			Variable{pkg + "gitCommit", "unknown"},
			Variable{pkg + "gitTreeState", "clean"},
			Variable{pkg + "buildDate", "2026-07-22T18:07:38Z"},
		)
	}
	return vars
}

// istioVariables tell what was really built, a commit of branch release-1.31, in a form that istiod still reads as a
// 1.31: to an agent of no version it would send what only older ones understand.
func istioVariables() []Variable {
	const pkg = "istio.io/istio/pkg/version."
	return []Variable{
		{pkg + "buildVersion", "1.31-" + istioRevision},
		{pkg + "buildGitRevision", istioRevision},
		{pkg + "buildStatus", "Clean"},
		{pkg + "buildTag", istioTag + "-distroless"},
		{pkg + "buildHub", "docker.io/istio"},
	}
}

func program(name string) (Program, bool) {
	all := Programs()
	i := slices.IndexFunc(all, func(p Program) bool { return p.Name == name })
	if i < 0 {
		return Program{}, false
	}
	return all[i], true
}

// linkFlags are the linker's: no symbol table and no DWARF, which take a third of each image, and the variables. What
// debug/buildinfo reads stays in.
func (p Program) linkFlags() string {
	flags := []string{"-s", "-w"}
	for _, v := range p.Variables {
		flags = append(flags, "-X", v.Name+"="+v.Value)
	}
	return strings.Join(flags, " ")
}
