package main

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/moby/moby/client"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/bundle"
	"ambientlab/internal/cluster"
	"ambientlab/internal/lb"
	"ambientlab/internal/node"
	"ambientlab/internal/upstream"
)

// workers is how many worker nodes both sides have.
const workers = 2

// handConfig is the configuration of the cluster that is created by hand: the nodes, and what a cgroup v1 host cannot
// do without. What the lab's own configuration changes to be faster is part of what is measured.
const handConfig = `kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes:
- role: control-plane
  extraPortMappings:
  - {containerPort: %d, hostPort: 0, listenAddress: 127.0.0.1}
%s`

const handCgroupV1 = `kubeadmConfigPatches:
- |
  kind: KubeletConfiguration
  failCgroupV1: false
`

// The names of the two ways of installing in the report.
const (
	groupInstall = "install"
	wholeLab     = "sm:install"
	wholeOld     = "sm:install of -old"
	wholeByHand  = "the commands it replaces"
)

// shortestPart is how long a step of sm:install takes, in seconds, that is reported as a part.
const shortestPart = 0.5

func (b *bench) sequenceName() string { return b.name + "-hand" }

// install measures both ways of installing in turns, each from nothing to a mesh that is ready, and the deletion after
// it. The lab of the last round stays for the measurements that need one.
func (b *bench) install(ctx context.Context) error {
	hand, err := b.byHand(ctx)
	if err != nil {
		return err
	}
	for range b.rounds {
		if err := hand.measure(ctx); err != nil {
			return err
		}
		if b.old != "" {
			if err := b.installLab(ctx, b.old, wholeOld); err != nil {
				return err
			}
		}
		if err := b.installLab(ctx, b.lab, wholeLab); err != nil {
			return err
		}
	}
	b.report.compare(groupInstall, wholeLab, wholeByHand)
	if b.old != "" {
		b.report.compare(groupInstall, wholeLab, wholeOld)
	}
	return nil
}

// installLab measures sm:install on a new cluster, three installs that change nothing, and sm:delete before it if there
// is a lab.
func (b *bench) installLab(ctx context.Context, lab, name string) error {
	began := now()
	if err := b.run(ctx, b.labEnv(), lab, "sm:delete"); err != nil {
		return err
	}
	if len(b.report.find(groupInstall, name, "s").Values) > 0 {
		b.report.spent(groupInstall, strings.ReplaceAll(name, "sm:install", "sm:delete"), began)
	}
	peak := memoryPeak()
	began = now()
	trace := b.file("install-trace.json")
	command, err := b.output(ctx, b.labEnv("SM_TRACE="+trace), lab, "sm:install")
	if err != nil {
		return err
	}
	b.report.spent(groupInstall, name, began)
	b.installed = true
	steps, err := readTrace(trace)
	if err != nil {
		return err
	}
	for _, s := range steps {
		if s.Seconds >= shortestPart {
			b.report.add(groupInstall, name+": step "+s.Step, "s", s.Seconds)
		}
	}
	b.report.add(groupInstall, name+", peak memory of the machine", "MiB", float64(peak())/(1<<20))
	if resident, ok := peakResident(command.ProcessState); ok {
		b.report.add(groupInstall, name+", peak memory of its process", "MiB", float64(resident)/(1<<20))
	}
	for range 3 {
		began = now()
		if err := b.run(ctx, b.labEnv(), lab, "sm:install"); err != nil {
			return err
		}
		b.report.spent(groupInstall, name+" again, no changes", began)
	}
	return nil
}

// byHand is the sequence of commands that the lab replaces, with the files that it needs.
type byHand struct {
	*bench
	config, images, metalLB, gatewayAPI, mesh string
}

// byHand writes the files. None of that is measured.
func (b *bench) byHand(ctx context.Context) (*byHand, error) {
	h := &byHand{bench: b}
	info, err := b.docker.Info(ctx, client.InfoOptions{})
	if err != nil {
		return nil, err
	}
	config := fmt.Sprintf(handConfig, node.GatewayPort, strings.Repeat("- role: worker\n", workers))
	if info.Info.CgroupVersion == "1" {
		config += handCgroupV1
	}
	h.config = b.file("kind.yaml")
	if err := os.WriteFile(h.config, []byte(config), 0o600); err != nil {
		return nil, err
	}
	if h.images, err = b.archive(ctx); err != nil {
		return nil, err
	}
	pinned := upstream.New("")
	metalLB, err := pinned.MetalLB(ctx)
	if err != nil {
		return nil, err
	}
	if h.metalLB, err = b.writeObjects("metallb.json", metalLB); err != nil {
		return nil, err
	}
	gatewayAPI, err := pinned.GatewayAPI(ctx)
	if err != nil {
		return nil, err
	}
	if h.gatewayAPI, err = b.writeObjects("gateway-api.json", gatewayAPI); err != nil {
		return nil, err
	}
	h.mesh = b.file("istio.yaml")
	return h, os.WriteFile(h.mesh, b.mesh(), 0o600)
}

// mesh is istioctl's file: the ambient profile with debug logs, as in the sequence, and what the bundle's images need.
func (b *bench) mesh() []byte {
	requests := map[string]any{"resources": map[string]any{"requests": map[string]any{
		"cpu": "50m", "memory": "256Mi",
	}}}
	cni := map[string]any{}
	for _, image := range b.bundle.Images() {
		if strings.Contains(image.Ref, "/ztunnel:") && image.Substitute != "" {
			cni["ambient"] = map[string]any{"dnsCapture": false}
		}
	}
	raw, err := yaml.Marshal(map[string]any{
		"apiVersion": "install.istio.io/v1alpha1", "kind": "IstioOperator",
		"spec": map[string]any{
			"profile": "ambient", "hub": "docker.io/istio", "tag": upstream.IstioVersion,
			"values": map[string]any{
				"global":  map[string]any{"logging": map[string]any{"level": "default:debug"}},
				"pilot":   requests,
				"cni":     cni,
				"ztunnel": map[string]any{"logLevel": "debug"},
			},
		},
	})
	if err != nil {
		panic(err) // only a value that cannot be YAML fails
	}
	return raw
}

// archive writes the images that sm:install loads into one file, as `kind load image-archive` takes it.
func (b *bench) archive(ctx context.Context) (string, error) {
	dir := b.file("images")
	w, err := bundle.Create(dir)
	if err != nil {
		return "", err
	}
	addons, err := b.addonImages(ctx)
	if err != nil {
		return "", err
	}
	for _, e := range b.bundle.Images() {
		if isNodeImage(e.Ref) || addons[e.Ref] { // the sequence has no add-ons
			continue
		}
		image, err := b.bundle.Image(e.Ref)
		if err != nil {
			return "", err
		}
		if err := w.Add(ctx, e.Ref, image, e.Substitute); err != nil {
			return "", err
		}
	}
	if err := w.Commit(); err != nil {
		return "", err
	}
	file, err := os.Create(dir + ".tar")
	if err != nil {
		return "", err
	}
	archive := tar.NewWriter(file)
	if err := archive.AddFS(os.DirFS(dir)); err != nil {
		return "", err
	}
	if err := archive.Close(); err != nil {
		return "", err
	}
	return file.Name(), file.Close()
}

// addonImages are the images of add-ons in the bundle.
func (b *bench) addonImages(ctx context.Context) (map[string]bool, error) {
	found := map[string]bool{}
	for _, name := range upstream.Addons() {
		list, err := upstream.New("").Addon(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, ref := range upstream.Images(list) {
			if entry, err := b.bundle.Lookup(ref); err == nil {
				found[entry.Ref] = true
			}
		}
	}
	return found, nil
}

// part is a part of the sequence.
type part struct {
	name string
	run  func(context.Context) error
}

// measure runs the sequence on a new cluster and deletes it.
func (h *byHand) measure(ctx context.Context) error {
	peak := memoryPeak()
	whole := now()
	for _, p := range h.parts() {
		began := now()
		if err := p.run(ctx); err != nil {
			return err
		}
		h.report.spent(groupInstall, "by hand: "+p.name, began)
	}
	h.report.spent(groupInstall, wholeByHand, whole)
	h.report.add(groupInstall, wholeByHand+", peak memory of the machine", "MiB", float64(peak())/(1<<20))
	began := now()
	if err := h.run(ctx, nil, h.kind, "delete", "cluster", "--name", h.sequenceName(), "--kubeconfig",
		h.kubeconfig); err != nil {
		return err
	}
	h.report.spent(groupInstall, "by hand: kind delete cluster", began)
	return nil
}

func (h *byHand) parts() []part {
	return []part{
		{"kind create cluster", func(ctx context.Context) error {
			return h.run(ctx, nil, h.kind, "create", "cluster", "--name", h.sequenceName(), "--config", h.config,
				"--image", h.nodeImage, "--kubeconfig", h.kubeconfig)
		}},
		{"docker exec sysctl", h.sysctls},
		{"kind load image-archive", func(ctx context.Context) error {
			return h.run(ctx, nil, h.kind, "load", "image-archive", h.images, "--name", h.sequenceName())
		}},
		{"kubectl apply MetalLB, wait, its addresses", h.metallb},
		{"kubectl apply Gateway API", func(ctx context.Context) error {
			return h.with(ctx, "apply", "--server-side", "-f", h.gatewayAPI)
		}},
		{"istioctl install", func(ctx context.Context) error {
			return h.run(ctx, nil, h.istioctl, "install", "--kubeconfig", h.kubeconfig, "-y", "-f", h.mesh)
		}},
		{"kubectl wait", h.wait},
	}
}

func (h *byHand) sysctls(ctx context.Context) error {
	nodes, err := node.List(ctx, h.docker, h.sequenceName())
	if err != nil {
		return err
	}
	for _, n := range nodes {
		for _, s := range node.Inotify() {
			if err := h.run(ctx, nil, "docker", "exec", n.Name, "sysctl", "-w",
				fmt.Sprintf("%s=%d", s.Key, s.Min)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (h *byHand) metallb(ctx context.Context) error {
	if err := h.with(ctx, "apply", "-f", h.metalLB); err != nil {
		return err
	}
	if err := h.with(ctx, "-n", lb.Namespace, "wait", "pod", "--all", "--for=condition=Ready",
		"--timeout=10m"); err != nil {
		return err
	}
	pool, err := lb.Planned(ctx, h.docker, cluster.KindNetwork())
	if err != nil {
		return err
	}
	file, err := h.writeObjects("pool.json", lb.Objects(pool))
	if err != nil {
		return err
	}
	// MetalLB's webhook can refuse connections for a moment after its pods are ready. A user would type this again.
	waited := wait.PollUntilContextTimeout(ctx, time.Second, time.Minute, true,
		func(ctx context.Context) (bool, error) {
			err = h.with(ctx, "apply", "-f", file)
			return err == nil, nil
		})
	return errors.Join(waited, err)
}

func (h *byHand) wait(ctx context.Context) error {
	if err := h.with(ctx, "wait", "node", "--all", "--for=condition=Ready", "--timeout=10m"); err != nil {
		return err
	}
	return h.with(ctx, "-n", "istio-system", "wait", "pod", "--all", "--for=condition=Ready", "--timeout=10m")
}
