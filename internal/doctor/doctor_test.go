package doctor_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"

	"ambientlab/internal/command"
	"ambientlab/internal/docker"
	"ambientlab/internal/docker/dockertest"
	"ambientlab/internal/doctor"
	"ambientlab/internal/problem"
)

const gib = 1 << 30

type fixture struct {
	engine *dockertest.Engine
	host   doctor.Host
	files  map[string]string
	free   uint64
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{free: 100 * gib, files: map[string]string{
		"/proc/sys/fs/inotify/max_user_instances": "1024\n",
		"/proc/sys/fs/inotify/max_user_watches":   "1048576\n",
		"/proc/modules":                           "",
	}}
	f.engine = &dockertest.Engine{Networks: map[string][]network.IPAMConfig{
		"bridge": {{Subnet: netip.MustParsePrefix("172.17.0.0/16"), Gateway: netip.MustParseAddr("172.17.0.1")}},
		"kind":   {{Subnet: netip.MustParsePrefix("172.18.0.0/16"), Gateway: netip.MustParseAddr("172.18.0.1")}},
	}, Host: system.Info{
		ServerVersion: "28.2.2", OSType: "linux", MemTotal: 16 * gib, NCPU: 8, CgroupVersion: "2",
		DockerRootDir: "/var/lib/docker",
	}}
	present := func(path string) (fs.FileInfo, error) {
		if strings.HasPrefix(path, "/sys/module") {
			return os.Stat(t.TempDir())
		}
		return os.Stat(path)
	}
	f.host = doctor.NewHost(f.engine, docker.Endpoint{Context: "default", Host: "unix:///var/run/docker.sock"},
		filepath.Join(t.TempDir(), ".kube", "config"), []int{3000})
	f.host.GOOS = "linux"
	f.host.Stat = present
	f.host.Free = func(string) (uint64, error) { return f.free, nil }
	f.host.LookPath = func(name string) (string, error) { return "/usr/bin/" + name, nil }
	f.addresses("127.0.0.1", "192.0.2.7", "172.17.0.1", "172.18.0.1")
	f.host.Listen = func(string) error { return nil }
	f.host.ReadFile = func(path string) ([]byte, error) {
		if content, ok := f.files[path]; ok {
			return []byte(content), nil
		}
		return nil, fs.ErrNotExist
	}
	return f
}

func (f *fixture) addresses(all ...string) {
	f.host.Addresses = func() (own []netip.Addr, err error) {
		for _, a := range all {
			own = append(own, netip.MustParseAddr(a))
		}
		return own, nil
	}
}

func TestGoodHost(t *testing.T) {
	f := newFixture(t)
	observed := 0
	results, err := doctor.Run(t.Context(), doctor.HostChecks(f.host), func(doctor.Result) { observed++ })
	if err != nil || observed != len(results) {
		t.Errorf("%v, observed %d of %d", err, observed, len(results))
	}
	for _, r := range results {
		if r.Verdict != doctor.OK {
			t.Errorf("%s: %s %s", r.ID, r.Verdict, r.Seen)
		}
	}
}

func TestChecks(t *testing.T) {
	tests := []struct {
		name   string
		change func(f *fixture)
		id     string
		want   doctor.Verdict
		kind   problem.Kind
		says   string
	}{
		{
			"engine down", func(f *fixture) { f.engine.Down = syscall.ECONNREFUSED }, "docker", doctor.Failure,
			problem.DockerNotRunning, "unix:///var/run/docker.sock",
		},
		{
			"engine refuses", func(f *fixture) { f.engine.Down = syscall.EACCES }, "docker", doctor.Failure,
			problem.DockerPermission, "",
		},
		{
			"engine down: the rest is skipped", func(f *fixture) { f.engine.Down = syscall.ECONNREFUSED }, "memory",
			doctor.Skipped,
			problem.Kind{},
			"needs the check docker",
		},
		{
			"no docker command",
			func(f *fixture) { f.host.LookPath = func(string) (string, error) { return "", errors.New("none") } },
			"docker-command", doctor.Failure, problem.ToolMissing, "",
		},
		{
			"old engine", func(f *fixture) { f.engine.Host.ServerVersion = "19.03.15" }, "docker-version",
			doctor.Failure,
			problem.HostUnsupported, "19.03.15",
		},
		{
			"Debian's engine", func(f *fixture) { f.engine.Host.ServerVersion = "20.10.24+dfsg1" }, "docker-version",
			doctor.OK,
			problem.Kind{},
			"20.10.24",
		},
		{
			"Windows containers", func(f *fixture) { f.engine.Host.OSType = "windows" }, "docker-version",
			doctor.Failure,
			problem.HostUnsupported, "windows",
		},
		{
			"hardly any memory", func(f *fixture) { f.engine.Host.MemTotal = 2 * gib }, "memory", doctor.Failure,
			problem.HostResources, "2.0 GiB",
		},
		{
			"little memory", func(f *fixture) { f.engine.Host.MemTotal = 4 * gib }, "memory", doctor.Warning,
			problem.HostResources, "4.0 GiB",
		},
		{"one CPU", func(f *fixture) { f.engine.Host.NCPU = 1 }, "cpus", doctor.Warning, problem.HostResources, "1"},
		{"disk full", func(f *fixture) { f.free = gib }, "disk", doctor.Failure, problem.HostResources, "1.0 GiB free"},
		{
			"disk of another machine", func(f *fixture) { f.host.Endpoint.Host = "tcp://far:2376" }, "disk",
			doctor.Skipped,
			problem.Kind{},
			"not visible",
		},
		{
			"in a container", func(f *fixture) { f.addresses("127.0.0.1", "172.17.0.3") }, "api-server", doctor.Warning,
			problem.APIServerElsewhere, "another network namespace",
		},
		{
			"in a container on the nodes' network", func(f *fixture) { f.addresses("127.0.0.1", "172.18.0.9") },
			"api-server", doctor.OK,
			problem.Kind{},
			"network kind",
		},
		{
			"an engine in another container",
			func(f *fixture) { f.host.Endpoint.Host = "tcp://docker:2376"; f.addresses("127.0.0.1", "172.17.0.3") },
			"api-server", doctor.Warning, problem.APIServerElsewhere, "on docker",
		},
		{
			"an engine over TCP on this machine", func(f *fixture) { f.host.Endpoint.Host = "tcp://192.0.2.7:2376" },
			"api-server", doctor.OK,
			problem.Kind{},
			"loopback address",
		},
		{
			"a rootless engine",
			func(f *fixture) { f.engine.Host.SecurityOptions = []string{"name=rootless"}; f.addresses("127.0.0.1") },
			"api-server", doctor.OK,
			problem.Kind{},
			"forwards",
		},
		{
			"no network bridge", func(f *fixture) { f.engine.Networks = nil; f.addresses("127.0.0.1") }, "api-server",
			doctor.Skipped,
			problem.Kind{},
			"not visible",
		},
		{
			"cgroup v1", func(f *fixture) { f.engine.Host.CgroupVersion = "1" }, "cgroup", doctor.Warning,
			problem.HostUnsupported, "v1",
		},
		{
			"inotify too low", func(f *fixture) { f.files["/proc/sys/fs/inotify/max_user_instances"] = "128" },
			"inotify",
			doctor.Warning, problem.HostLimits, "=128",
		},
		{
			"macOS", func(f *fixture) { f.host.GOOS = "darwin" }, "inotify", doctor.Skipped,
			problem.Kind{},
			"not visible",
		},
		{"no ip_set", func(f *fixture) {
			stat := f.host.Stat
			f.host.Stat = func(path string) (fs.FileInfo, error) {
				if path == "/sys/module/ip_set" {
					return nil, fs.ErrNotExist
				}
				return stat(path)
			}
		}, "modules", doctor.Warning, problem.HostUnsupported, "ip_set"},
		{
			"a kernel without modules", func(f *fixture) { delete(f.files, "/proc/modules") }, "modules",
			doctor.Skipped,
			problem.Kind{},
			"no loadable modules",
		},
		{"port taken", func(f *fixture) {
			f.host.Listen = func(a string) error { return fmt.Errorf("listen %s: in use", a) }
		}, "ports", doctor.Warning, problem.PortInUse, "3000"},
		{"kubeconfig locked", func(f *fixture) {
			f.host.Kubeconfig = filepath.Join(filepath.Dir(filepath.Dir(f.host.Kubeconfig)), "config")
			if err := os.WriteFile(f.host.Kubeconfig+".lock", nil, 0o600); err != nil {
				panic(err)
			}
		}, "kubeconfig", doctor.Warning, problem.KubeconfigInvalid, "config"},
		{"kubeconfig read-only", func(f *fixture) {
			f.host.Kubeconfig = filepath.Join(filepath.Dir(filepath.Dir(f.host.Kubeconfig)), "config")
			if err := os.WriteFile(f.host.Kubeconfig, nil, 0o400); err != nil {
				panic(err)
			}
		}, "kubeconfig", doctor.Failure, problem.KubeconfigInvalid, "config"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			tt.change(f)
			results, err := doctor.Run(t.Context(), doctor.HostChecks(f.host), nil)
			for _, r := range results {
				if r.ID != tt.id {
					continue
				}
				if r.Verdict != tt.want || r.Problem != tt.kind.ID || !strings.Contains(r.Seen, tt.says) {
					t.Errorf("%s %s %q, want %s %s saying %q", r.Verdict, r.Problem, r.Seen, tt.want, tt.kind.ID,
						tt.says)
				}
				if tt.kind.ID != "" && len(r.Advice) == 0 {
					t.Error("no advice")
				}
			}
			if failed := tt.want == doctor.Failure; failed && problem.ExitCode(err) != tt.kind.Exit() {
				t.Errorf("exit code %d, want %d", problem.ExitCode(err), tt.kind.Exit())
			}
		})
	}
}

func TestClusterCheck(t *testing.T) {
	for _, ready := range []bool{true, false} {
		check := doctor.ClusterCheck(
			func(context.Context) (string, bool, error) { return "kind cluster ambient: absent", ready, nil })
		results, err := doctor.Run(t.Context(), []doctor.Check{check}, nil)
		want := map[bool]doctor.Verdict{true: doctor.OK, false: doctor.Warning}[ready]
		if err != nil || results[0].Verdict != want || !strings.Contains(results[0].Seen, "absent") {
			t.Errorf("ready %v: %+v, %v", ready, results, err)
		}
	}
}

// TestKernelRules: where the engine has the node image, the kernel is tried, on another machine too.
func TestKernelRules(t *testing.T) {
	for _, tt := range []struct {
		name, output string
		err          error
		remote       bool
		want         doctor.Verdict
		says         string
	}{
		{name: "all rules", output: "done\n", remote: true, want: doctor.OK, says: "rules tried"},
		{
			name: "two modules missing", output: "xt_connmark\nip_set\ndone\n", remote: true, want: doctor.Warning,
			says: "xt_connmark, ip_set",
		},
		{name: "no image", err: errors.New("exit status 125"), want: doctor.OK, says: "nf_tables or ip_tables"},
		{
			name: "no image, and another machine", err: errors.New("exit status 125"), remote: true,
			want: doctor.Skipped,
			says: "not visible",
		},
		{
			name: "a container that ended early", output: "xt_mark\n", remote: true, want: doctor.Skipped,
			says: "not visible",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			f.host.NodeImage = "kindest/node:test"
			if tt.remote {
				f.host.Endpoint.Host = "tcp://far:2376"
			}
			f.host.Command = func(_ context.Context, c command.Command) ([]byte, error) {
				if line := c.String(); !strings.Contains(line, "kindest/node:test") || !strings.Contains(line, "--rm") {
					t.Errorf("ran %s", line)
				}
				return []byte(tt.output), tt.err
			}
			results, _ := doctor.Run(t.Context(), doctor.HostChecks(f.host), nil)
			for _, r := range results {
				if r.ID != "modules" {
					continue
				}
				if text := fmt.Sprint(r.Seen, r.Err); r.Verdict != tt.want || !strings.Contains(text, tt.says) {
					t.Errorf("%s: %s", r.Verdict, text)
				}
			}
		})
	}
}
