package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
	"k8s.io/apimachinery/pkg/util/version"

	"ambientlab/internal/command"
	"ambientlab/internal/docker"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// Docker is the part of the Docker client that the checks use.
type Docker interface {
	docker.Pinger
	Info(ctx context.Context, options client.InfoOptions) (client.SystemInfoResult, error)
	NetworkInspect(
		ctx context.Context, network string, options client.NetworkInspectOptions,
	) (client.NetworkInspectResult, error)
}

// Host gives the checks access to the host. NewHost returns the real one.
type Host struct {
	Docker   Docker
	Endpoint docker.Endpoint
	// Kubeconfig is the file that the lab writes.
	Kubeconfig string
	// NodeImage is the image of kind's nodes, in which the checks try the kernel; empty means that none is known.
	NodeImage string
	// Ports are the local TCP ports that the lab listens on.
	Ports []int

	GOOS     string
	ReadFile func(path string) ([]byte, error)
	Stat     func(path string) (fs.FileInfo, error)
	Free     func(path string) (bytes uint64, err error)
	LookPath func(name string) (string, error)
	Listen   func(address string) error
	// Addresses lists the addresses of this process's network namespace.
	Addresses func() ([]netip.Addr, error)
	// Command runs the docker command.
	Command command.Runner
}

// NewHost returns this machine.
func NewHost(api Docker, endpoint docker.Endpoint, kubeconfig string, ports []int) Host {
	return Host{
		Docker: api, Endpoint: endpoint, Kubeconfig: kubeconfig, Ports: ports,
		GOOS: runtime.GOOS, ReadFile: os.ReadFile, Stat: os.Stat, Free: free, LookPath: exec.LookPath,
		Addresses: addresses,
		Command:   command.Run,
		Listen: func(address string) error {
			l, err := net.Listen("tcp", address)
			if err != nil {
				return err
			}
			return l.Close()
		},
	}
}

// The requirements for the Docker host. Three nodes with istiod, istio-cni, three ztunnels, a gateway, a waypoint and
// two apps use about 3 GiB of memory, the add-ons 1 GiB more.
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

// HostChecks returns the checks of the host.
func HostChecks(h Host) []Check {
	check := func(category, id, title string, run func(context.Context) (string, error), needs string) Check {
		return Check{ID: id, Category: category, Title: title, Needs: needs, Run: run}
	}
	return []Check{
		check("docker", "docker-command", "the docker command is installed", h.command, ""),
		check("docker", "docker", "a Docker engine answers", h.ping, ""),
		check("docker", "docker-version", "the Docker engine is new enough", h.version, "docker"),
		check("resources", "memory", "the Docker engine has enough memory", h.memory, "docker"),
		check("resources", "cpus", "the Docker engine has enough CPUs", h.cpus, "docker"),
		check("resources", "disk", "the disk of the Docker engine has enough space", h.disk, "docker"),
		check("kernel", "cgroup", "the Docker engine uses cgroup v2", h.cgroup, "docker"),
		check("kernel", "inotify", "the inotify limits are high enough", h.inotify, "docker"),
		check("kernel", "modules", "the kernel has the modules for traffic redirection", h.kernel, "docker"),
		check("network", "api-server", "the API server of a kind cluster can be reached from here", h.apiServer,
			"docker"),
		check("network", "ports", "the local ports are free", h.ports, ""),
		check("files", "kubeconfig", "the kubeconfig can be written", h.kubeconfig, ""),
	}
}

// ClusterCheck returns the check of the cluster. look returns the state of the cluster, as cluster.Info.Summary does.
func ClusterCheck(look func(context.Context) (summary string, ready bool, err error)) Check {
	return Check{
		ID: "cluster", Category: "cluster", Title: "the lab's cluster is ready, if it exists",
		Run: func(ctx context.Context) (string, error) {
			summary, ready, err := look(ctx)
			if err == nil && !ready {
				err = Warn(problem.New(problem.ClusterNone, nil, "%s", summary))
			}
			return summary, err
		},
	}
}

// PodsCheck tries whether the pods of an embedded lab can run on this machine. That they cannot is a warning: the lab
// then reports them as running.
func PodsCheck(try func(context.Context) (seen string, err error)) Check {
	return Check{
		ID: "pods", Category: "host", Title: "pods can run as processes in network namespaces",
		Run: func(ctx context.Context) (string, error) {
			seen, err := try(ctx)
			if err != nil {
				err = Warn(err)
			}
			return seen, err
		},
	}
}

func (h Host) command(context.Context) (string, error) {
	path, err := h.LookPath("docker")
	if err != nil {
		return "", problem.New(problem.ToolMissing, err, "the docker command is not on PATH; kind needs it")
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
		return seen, problem.New(problem.HostUnsupported, nil,
			"the Docker engine runs %s containers; the lab needs Linux containers", info.OSType)
	}
	v, err := version.ParseGeneric(info.ServerVersion)
	if err == nil && !v.AtLeast(version.MustParseGeneric(oldestDocker)) {
		return seen, problem.New(problem.HostUnsupported, nil,
			"Docker %s is too old; the lab needs %s or newer", info.ServerVersion, oldestDocker)
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
		err = Warn(problem.New(problem.HostResources, nil,
			"CPUs: %d; with fewer than %d the lab is slow", info.NCPU, goodCPUs))
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
		return problem.New(problem.HostResources, nil, "%s; the lab needs at least %d GiB", seen, least/gib)
	case have < good:
		return Warn(problem.New(problem.HostResources, nil, "%s; %d GiB is recommended", seen, good/gib))
	default:
		return nil
	}
}

// local reports whether the Docker engine shares the kernel and disk of this machine: on Linux, behind a Unix socket,
// and not Docker Desktop, which has a virtual machine of its own on Linux too.
func (h Host) local() bool {
	return h.GOOS == "linux" && strings.HasPrefix(h.Endpoint.Host, "unix://") &&
		!strings.Contains(h.Endpoint.Context, "desktop")
}

func (h Host) cgroup(ctx context.Context) (string, error) {
	info, err := h.info(ctx)
	if err == nil && info.CgroupVersion == "1" {
		err = Warn(problem.New(problem.HostUnsupported, nil,
			"the host uses cgroup v1; Kubernetes 1.35 and newer accept it only with the setting in the lab's kind "+
				"configuration").
			With("If you can, boot the host with cgroup v2 (kernel parameter systemd.unified_cgroup_hierarchy=1)."))
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
		return strings.Join(seen, ", "),
			Warn(problem.New(problem.HostLimits, nil, "%s; sm:install raises it", strings.Join(low, ", ")))
	}
	return strings.Join(seen, ", "), nil
}

// modules checks for the kernel modules that istio-cni's traffic redirection needs. It only warns: the kernel may load
// a missing module on demand, or have it built in.
func (h Host) modules(context.Context) (string, error) {
	if !h.local() {
		return "", ErrHidden
	}
	// A kernel without loadable modules has no such file, and /sys/module lists a built-in module only if it has
	// parameters.
	if _, err := h.ReadFile("/proc/modules"); err != nil {
		return "the kernel has no loadable modules", fmt.Errorf("/proc/modules: %w", ErrHidden)
	}
	var missing []string
	for _, any := range [][]string{{"nf_tables", "ip_tables"}, {"nf_nat"}, {"nf_conntrack"}, {"ip_set"}} {
		if !h.anyModule(any) {
			missing = append(missing, strings.Join(any, " or "))
		}
	}
	if len(missing) > 0 {
		return "", Warn(problem.New(problem.HostUnsupported, nil, "kernel modules not loaded: %s",
			strings.Join(missing, ", ")).
			With("If pods of the mesh fail to start, load the modules on the Docker host: `sudo modprobe -a " +
				strings.ReplaceAll(strings.Join(missing, " "), " or ", " ") + "`."))
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
		return "", Warn(problem.New(problem.PortInUse, errors.Join(errs...), "another program uses the port: %s",
			strings.Join(taken, ", ")))
	}
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(h.Ports), " ", ", "), "[]"), nil
}

// kubeconfig checks the mode of the file, or of the first existing parent directory. It writes nothing.
func (h Host) kubeconfig(context.Context) (string, error) {
	if _, err := h.Stat(h.Kubeconfig + ".lock"); err == nil {
		return h.Kubeconfig, Warn(problem.New(problem.KubeconfigInvalid, nil,
			"the file %s.lock exists, so no program writes %s", h.Kubeconfig, h.Kubeconfig).
			With("If no kubectl and no kind is running, a killed one left the lock file: remove it."))
	}
	for path := h.Kubeconfig; ; path = filepath.Dir(path) {
		info, err := h.Stat(path)
		if errors.Is(err, fs.ErrNotExist) && path != filepath.Dir(path) {
			continue // the lab creates it
		}
		if err != nil {
			return h.Kubeconfig, problem.New(problem.KubeconfigInvalid, err, "checking the kubeconfig %s", h.Kubeconfig)
		}
		if info.Mode().Perm()&0o200 == 0 {
			return h.Kubeconfig,
				problem.New(problem.KubeconfigInvalid, nil, "%s cannot be written (mode %s)", path, info.Mode())
		}
		return h.Kubeconfig, nil
	}
}
