package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"k8s.io/apimachinery/pkg/util/version"

	"ambientlab/internal/docker"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// Docker is the part of the Docker client the checks need.
type Docker interface {
	docker.Pinger
	Info(ctx context.Context, options client.InfoOptions) (client.SystemInfoResult, error)
}

// Host is what the checks of the host look at. NewHost gives the real one.
type Host struct {
	Docker   Docker
	Endpoint docker.Endpoint
	// Kubeconfig is the file that will be written.
	Kubeconfig string
	// Ports are local TCP ports the lab will listen on.
	Ports []int

	GOOS     string
	ReadFile func(path string) ([]byte, error)
	Stat     func(path string) (fs.FileInfo, error)
	Free     func(path string) (bytes uint64, err error)
	LookPath func(name string) (string, error)
	Listen   func(address string) error
}

// NewHost is this machine.
func NewHost(api Docker, endpoint docker.Endpoint, kubeconfig string, ports []int) Host {
	return Host{
		Docker: api, Endpoint: endpoint, Kubeconfig: kubeconfig, Ports: ports,
		GOOS: runtime.GOOS, ReadFile: os.ReadFile, Stat: os.Stat, Free: free, LookPath: exec.LookPath,
		Listen: func(address string) error {
			l, err := net.Listen("tcp", address)
			if err != nil {
				return err
			}
			return l.Close()
		},
	}
}

// What the lab needs of a Docker machine. Three nodes with istiod, istio-cni, three
// ztunnels, a gateway, a waypoint and two apps use about 3 GiB; the add-ons 1 GiB more.
const (
	gib              = 1 << 30
	leastMemory      = 3 * gib
	goodMemory       = 6 * gib
	goodCPUs         = 2
	leastDisk        = 5 * gib
	goodDisk         = 15 * gib
	oldestDocker     = "20.10.0"
	modulesDirectory = "/sys/module"
)

// HostChecks lists the checks of the host.
func HostChecks(h Host) []Check {
	return []Check{
		{ID: "docker-command", Category: "docker", Title: "the docker command is installed", Run: h.command},
		{ID: "docker", Category: "docker", Title: "a Docker engine answers", Run: h.ping},
		{ID: "docker-version", Category: "docker", Title: "the engine is recent enough", Needs: "docker", Run: h.version},
		{ID: "memory", Category: "resources", Title: "the engine has memory enough", Needs: "docker", Run: h.memory},
		{ID: "cpus", Category: "resources", Title: "the engine has CPUs enough", Needs: "docker", Run: h.cpus},
		{ID: "disk", Category: "resources", Title: "the engine's disk has room", Needs: "docker", Run: h.disk},
		{ID: "cgroup", Category: "kernel", Title: "the engine runs cgroup v2", Needs: "docker", Run: h.cgroup},
		{ID: "inotify", Category: "kernel", Title: "inotify limits are high enough", Needs: "docker", Run: h.inotify},
		{ID: "modules", Category: "kernel", Title: "the kernel can redirect traffic", Needs: "docker", Run: h.modules},
		{ID: "ports", Category: "network", Title: "local ports are free", Run: h.ports},
		{ID: "kubeconfig", Category: "files", Title: "the kubeconfig can be written", Run: h.kubeconfig},
	}
}

// ClusterCheck asks the provider's look at the cluster, as cluster.Info.Summary gives it.
func ClusterCheck(look func(context.Context) (summary string, ready bool, err error)) Check {
	return Check{ID: "cluster", Category: "cluster", Title: "the cluster is ready", Run: func(ctx context.Context) (string, error) {
		summary, ready, err := look(ctx)
		if err == nil && !ready {
			err = Warn(problem.New(problem.ClusterNone, nil, "%s", summary))
		}
		return summary, err
	}}
}

func (h Host) command(context.Context) (string, error) {
	path, err := h.LookPath("docker")
	if err != nil {
		return "", problem.New(problem.ToolMissing, err, "the docker command is not on PATH, and kind's library runs it")
	}
	return path, nil
}

func (h Host) ping(ctx context.Context) (string, error) {
	return h.Endpoint.String(), docker.Ping(ctx, h.Docker, h.Endpoint)
}

func (h Host) info(ctx context.Context) (system.Info, error) {
	result, err := h.Docker.Info(ctx, client.InfoOptions{})
	return result.Info, docker.Explain(ctx, err, h.Endpoint)
}

func (h Host) version(ctx context.Context) (string, error) {
	info, err := h.info(ctx)
	if err != nil {
		return "", err
	}
	seen := fmt.Sprintf("%s, %s, %s/%s", info.ServerVersion, info.OperatingSystem, info.OSType, info.Architecture)
	if info.OSType != "linux" {
		return seen, problem.New(problem.HostUnsupported, nil, "the engine runs %s containers; the lab needs linux", info.OSType)
	}
	v, err := version.ParseGeneric(info.ServerVersion)
	if err == nil && !v.AtLeast(version.MustParseGeneric(oldestDocker)) {
		return seen, problem.New(problem.HostUnsupported, nil, "Docker %s is older than %s, from which on containers can have cgroups of their own", info.ServerVersion, oldestDocker)
	}
	return seen, nil
}

func (h Host) memory(ctx context.Context) (string, error) {
	info, err := h.info(ctx)
	if err != nil {
		return "", err
	}
	seen := fmt.Sprintf("%.1f GiB", float64(info.MemTotal)/gib)
	return seen, tooLittle(uint64(max(info.MemTotal, 0)), leastMemory, goodMemory, "memory: "+seen)
}

func (h Host) cpus(ctx context.Context) (string, error) {
	info, err := h.info(ctx)
	if err == nil && info.NCPU < goodCPUs {
		err = Warn(problem.New(problem.HostResources, nil, "%d CPU; the lab will be slow with fewer than %d", info.NCPU, goodCPUs))
	}
	return strconv.Itoa(info.NCPU), err
}

func (h Host) disk(ctx context.Context) (string, error) {
	info, err := h.info(ctx)
	if err != nil {
		return "", err
	}
	if !h.local() {
		return "", ErrHidden
	}
	bytes, err := h.Free(info.DockerRootDir)
	if err != nil {
		return "", fmt.Errorf("%s: %w", info.DockerRootDir, ErrHidden)
	}
	seen := fmt.Sprintf("%.1f GiB free on %s", float64(bytes)/gib, info.DockerRootDir)
	return seen, tooLittle(bytes, leastDisk, goodDisk, "disk: "+seen)
}

func tooLittle(have, least, good uint64, seen string) error {
	switch {
	case have < least:
		return problem.New(problem.HostResources, nil, "%s; the lab needs %d GiB", seen, least/gib)
	case have < good:
		return Warn(problem.New(problem.HostResources, nil, "%s; %d GiB is comfortable", seen, good/gib))
	default:
		return nil
	}
}

// local tells whether the engine shares this machine's kernel and disk: on Linux and
// behind a socket. Docker Desktop has a machine of its own even there.
func (h Host) local() bool {
	return h.GOOS == "linux" && strings.HasPrefix(h.Endpoint.Host, "unix://") && !strings.Contains(h.Endpoint.Context, "desktop")
}

func (h Host) cgroup(ctx context.Context) (string, error) {
	info, err := h.info(ctx)
	if err == nil && info.CgroupVersion == "1" {
		err = Warn(problem.New(problem.HostUnsupported, nil, "cgroup v1: Kubernetes 1.35 and later refuse it unless told otherwise, which the lab's kind configuration does").
			With("Boot the host with cgroup v2 (systemd.unified_cgroup_hierarchy=1) when you can."))
	}
	return "cgroup v" + info.CgroupVersion, err
}

func (h Host) inotify(context.Context) (string, error) {
	if !h.local() {
		return "", ErrHidden
	}
	var seen, low []string
	for _, s := range node.Inotify() {
		raw, err := h.ReadFile("/proc/sys/" + strings.ReplaceAll(s.Key, ".", "/"))
		if err != nil {
			return "", fmt.Errorf("%s: %w", s.Key, ErrHidden)
		}
		value, err := strconv.ParseInt(strings.TrimSpace(string(raw)), 10, 64)
		if err != nil {
			return "", fmt.Errorf("%s: %w", s.Key, err)
		}
		seen = append(seen, fmt.Sprintf("%s=%d", s.Key, value))
		if value < s.Min {
			low = append(low, fmt.Sprintf("%s is %d, less than %d", s.Key, value, s.Min))
		}
	}
	if len(low) > 0 {
		return strings.Join(seen, ", "), Warn(problem.New(problem.HostLimits, nil, "%s; sm:install raises it", strings.Join(low, ", ")))
	}
	return strings.Join(seen, ", "), nil
}

// modules looks for what istio-cni's redirection needs. A module that is not loaded
// may still be loaded on demand, or be built in without a trace, so this only warns.
func (h Host) modules(context.Context) (string, error) {
	if !h.local() {
		return "", ErrHidden
	}
	// A kernel without loadable modules has no such file; what is built in leaves a
	// trace in /sys/module only where it has parameters.
	if _, err := h.ReadFile("/proc/modules"); err != nil {
		return "everything is built into this kernel", fmt.Errorf("/proc/modules: %w", ErrHidden)
	}
	var missing []string
	for _, any := range [][]string{{"nf_tables", "ip_tables"}, {"nf_nat"}, {"nf_conntrack"}, {"ip_set"}} {
		if !h.anyModule(any) {
			missing = append(missing, strings.Join(any, " or "))
		}
	}
	if len(missing) > 0 {
		return "", Warn(problem.New(problem.HostUnsupported, nil, "not loaded: %s", strings.Join(missing, ", ")).
			With("If pods of the mesh fail to start, load them on the host: sudo modprobe " + strings.ReplaceAll(strings.Join(missing, " "), " or ", " ")))
	}
	return "nf_tables or ip_tables, nf_nat, nf_conntrack, ip_set", nil
}

func (h Host) anyModule(names []string) bool {
	for _, name := range names {
		if _, err := h.Stat(filepath.Join(modulesDirectory, name)); err == nil {
			return true
		}
	}
	return false
}

func (h Host) ports(context.Context) (string, error) {
	var taken []string
	var errs []error
	for _, port := range h.Ports {
		if err := h.Listen(net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err != nil {
			taken, errs = append(taken, strconv.Itoa(port)), append(errs, err)
		}
	}
	if len(taken) > 0 {
		return "", Warn(problem.New(problem.PortInUse, errors.Join(errs...), "taken: %s", strings.Join(taken, ", ")))
	}
	return fmt.Sprint(h.Ports), nil
}

// kubeconfig checks by looking, not by writing: the file's mode, or the directory's.
func (h Host) kubeconfig(context.Context) (string, error) {
	if _, err := h.Stat(h.Kubeconfig + ".lock"); err == nil {
		return h.Kubeconfig, Warn(problem.New(problem.KubeconfigInvalid, nil, "%s is locked by %s.lock", h.Kubeconfig, h.Kubeconfig).
			With("If no kubectl or kind is at work, a killed one left the lock behind: remove it."))
	}
	for path := h.Kubeconfig; ; path = filepath.Dir(path) {
		info, err := h.Stat(path)
		if errors.Is(err, fs.ErrNotExist) && path != filepath.Dir(path) {
			continue // it will be made
		}
		if err != nil {
			return h.Kubeconfig, problem.New(problem.KubeconfigInvalid, err, "the kubeconfig %s cannot be looked at", h.Kubeconfig)
		}
		if info.Mode().Perm()&0o200 == 0 {
			return h.Kubeconfig, problem.New(problem.KubeconfigInvalid, nil, "%s is not writable (mode %s)", path, info.Mode())
		}
		return h.Kubeconfig, nil
	}
}
