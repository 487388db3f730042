package node_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"ambientlab/internal/docker/dockertest"
	"ambientlab/internal/engine"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// kernel is the host's settings, seen alike from every node.
type kernel struct {
	mu     sync.Mutex
	values map[string]string
	writes []string
	// stubborn keys take a write and keep their value; denied ones refuse it.
	stubborn, denied string
}

func (k *kernel) exec(name string, command []string) (string, string, int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if command[0] == "cat" {
		v, ok := k.values[command[1]]
		if !ok {
			return "", "cat: " + command[1] + ": No such file or directory", 1
		}
		return v + "\n", "", 0
	}
	path, value := command[3], command[4]
	if path == k.denied {
		return "", "sh: 1: cannot create " + path + ": Read-only file system", 2
	}
	k.writes = append(k.writes, name+" "+path+" "+value)
	if path != k.stubborn {
		k.values[path] = value
	}
	return "", "", 0
}

const (
	instances = "/proc/sys/fs/inotify/max_user_instances"
	watches   = "/proc/sys/fs/inotify/max_user_watches"
)

func labNodes(t *testing.T, k *kernel) (*dockertest.Engine, []node.Node) {
	t.Helper()
	e := &dockertest.Engine{Exec: k.exec}
	mark := node.Mark{Lab: "ambient", Slot: 3}
	for i, role := range []string{"worker", "worker", "control-plane", "external-load-balancer"} {
		name := fmt.Sprintf("ambient-%s%d", role, i)
		e.Add(dockertest.Container{
			ID: "id-" + name, Name: name, Network: "kind", IP: fmt.Sprintf("172.18.0.%d", i+2),
			Labels: map[string]string{node.ClusterLabel: "ambient", node.RoleLabel: role},
			Mounts: []string{"/var", mark.MountPoint()},
		})
	}
	e.Add(dockertest.Container{
		Name: "other", Network: "kind",
		Labels: map[string]string{node.ClusterLabel: "other", node.RoleLabel: "control-plane"},
	})
	e.Add(dockertest.Container{Name: "ambient-worker9", Network: "bridge"})
	nodes, err := node.List(t.Context(), e, "ambient")
	if err != nil {
		t.Fatal(err)
	}
	return e, nodes
}

func TestListGoesByLabels(t *testing.T) {
	_, nodes := labNodes(t, &kernel{})
	var names []string
	for _, n := range nodes {
		names = append(names, n.Name)
		if n.Mark == nil || *n.Mark != (node.Mark{Lab: "ambient", Slot: 3}) {
			t.Errorf("%s: mark %v", n.Name, n.Mark)
		}
		if n.Network != "kind" || !strings.HasPrefix(n.InternalIP, "172.18.0.") || !n.Running {
			t.Errorf("%+v", n)
		}
	}
	if got, want := strings.Join(names, " "),
		"ambient-control-plane2 ambient-external-load-balancer3 ambient-worker0 ambient-worker1"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// The gateway's port is where Docker publishes it, whatever else is published, and nowhere on a node without it.
func TestListFindsTheGateway(t *testing.T) {
	e := &dockertest.Engine{}
	labels := map[string]string{node.ClusterLabel: "ambient", node.RoleLabel: node.ControlPlane}
	e.Add(dockertest.Container{
		Name: "with", Labels: labels, Published: "127.0.0.1:40001",
		Ports: map[uint16]string{node.GatewayPort: "127.0.0.1:40002", 80: "0.0.0.0:40003"},
	})
	e.Add(dockertest.Container{Name: "without", Labels: labels, Published: "127.0.0.1:40004"})
	nodes, err := node.List(t.Context(), e, "ambient")
	if err != nil || len(nodes) != 2 {
		t.Fatalf("nodes %v, %v", nodes, err)
	}
	if n := nodes[0]; n.APIServer != "127.0.0.1:40001" || n.Gateway != "127.0.0.1:40002" {
		t.Errorf("%s: API server %q, gateway %q", n.Name, n.APIServer, n.Gateway)
	}
	if n := nodes[1]; n.APIServer != "127.0.0.1:40004" || n.Gateway != "" {
		t.Errorf("%s: API server %q, gateway %q", n.Name, n.APIServer, n.Gateway)
	}
}

func TestTune(t *testing.T) {
	tests := []struct {
		name             string
		instances, watch string
		writes           int
		want             string
	}{
		{"too low", "128", "8192", 2, "ambient-control-plane2: fs.inotify.max_user_instances 128 -> 1024"},
		{"high enough", "8192", "1048576", 0, "ambient-control-plane2: fs.inotify.max_user_instances is 8192"},
		{"one too low", "1024", "8192", 1, "ambient-control-plane2: fs.inotify.max_user_watches 8192 -> 1048576"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			k := &kernel{values: map[string]string{instances: tt.instances, watches: tt.watch}}
			e, nodes := labNodes(t, k)
			results, err := node.Tune(t.Context(), e, nodes, node.Inotify())
			if err != nil {
				t.Fatal(err)
			}
			// Three nodes of two keys; the load balancer is none. The first write is seen by all.
			if len(results) != 6 || len(k.writes) != tt.writes {
				t.Errorf("%d results, writes %v; want 6 and %d", len(results), k.writes, tt.writes)
			}
			said := ""
			for _, r := range results {
				said += r.String() + "\n"
				if !r.Holds() {
					t.Errorf("%s does not hold", r)
				}
			}
			if !strings.Contains(said, tt.want) {
				t.Errorf("reported:\n%swant a line %q", said, tt.want)
			}
		})
	}
}

func TestTuneFailuresNameNodeKeyAndOutput(t *testing.T) {
	tests := []struct {
		name string
		k    *kernel
		want []string
	}{
		{
			"refused", &kernel{values: map[string]string{instances: "128", watches: "1048576"}, denied: instances},
			[]string{"ambient-worker0", "fs.inotify.max_user_instances", "Read-only file system"},
		},
		{
			"not taken", &kernel{values: map[string]string{instances: "128", watches: "1048576"}, stubborn: instances},
			[]string{"ambient-worker1", "fs.inotify.max_user_instances=1024", "but its value is 128"},
		},
		{
			"unreadable", &kernel{values: map[string]string{watches: "1048576"}},
			[]string{"max_user_instances", "No such file"},
		},
		{
			"not a number", &kernel{values: map[string]string{instances: "many", watches: "1048576"}},
			[]string{`is "many"`},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, nodes := labNodes(t, tt.k)
			results, err := node.Tune(t.Context(), e, nodes, node.Inotify())
			if !problem.Is(err, problem.NodeTuneFailed) {
				t.Fatalf("got %v", err)
			}
			if got := len(problem.All(err)); got != 3 {
				t.Errorf("%d problems, want one for each node", got)
			}
			if len(results) != 3 {
				t.Errorf("%d results; the other key is to be done all the same", len(results))
			}
			for _, want := range tt.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q is not in: %v", want, err)
				}
			}
		})
	}
}

func TestStep(t *testing.T) {
	k := &kernel{values: map[string]string{instances: "128", watches: "8192"}}
	e, nodes := labNodes(t, k)
	step := node.Step("node-tuning", "Tune the nodes", nil, e,
		func(context.Context) ([]node.Node, error) { return nodes, nil }, "$(nodes)", node.Inotify())
	plan := engine.Plan{Name: "p", Steps: []engine.Step{step}}
	var eng engine.Engine
	preview, err := eng.Preview(t.Context(), plan)
	if err != nil || len(preview[0].Changes) != 6 || len(k.writes) != 0 {
		t.Errorf("preview: %+v, %v, writes %v", preview, err, k.writes)
	}
	const raise = `for node in $(nodes); do docker exec "$node" ` +
		`sh -c 'test "$(sysctl -n fs.inotify.max_user_instances)" -ge 1024 || ` +
		`sysctl -w fs.inotify.max_user_instances=1024'; done`
	if explained := step.Explain(); len(explained) != 2 || explained[0] != raise {
		t.Errorf("explained as %q", explained)
	}
	said := &notes{}
	eng.Sink = said
	result, err := eng.Apply(t.Context(), plan)
	if err != nil || len(result.Changes()) != 2 {
		t.Errorf("first apply: %+v, %v", result, err)
	}
	if len(*said) != 1 || (*said)[0] != node.HostWide {
		t.Errorf("that the limits are the host's is to be said once, as a note: %q", *said)
	}
	result, err = eng.Apply(t.Context(), plan)
	if err != nil || len(result.Changes()) != 0 || result.Steps[0].Outcome != engine.Unchanged {
		t.Errorf("second apply: %+v, %v", result, err)
	}
}

// notes keeps what is said to stay readable.
type notes []string

func (n *notes) Handle(ev engine.Event) {
	if ev.Kind == engine.Note {
		*n = append(*n, ev.Message)
	}
}

func TestMarkIsReadFromItsMountPointOnly(t *testing.T) {
	tests := map[string]bool{
		"/etc/ambientlab/ambient/slot-0":   true,
		"/etc/ambientlab/my.lab-2/slot-63": true,
		"/etc/ambientlab/ambient":          false,
		"/etc/ambientlab//slot-0":          false,
		"/etc/ambientlab/a/b/slot-0":       false,
		"/etc/ambientlab/a/slot--1":        false,
		"/etc/ambientlab/a/slot-x":         false,
		"/lib/modules":                     false,
	}
	for mount, want := range tests {
		e := &dockertest.Engine{}
		e.Add(dockertest.Container{
			Name: "n", Labels: map[string]string{node.ClusterLabel: "c"},
			Mounts: []string{mount},
		})
		nodes, err := node.List(t.Context(), e, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := nodes[0].Mark != nil; got != want {
			t.Errorf("%s is a mark: %v, want %v", mount, got, want)
		}
		if nodes[0].Mark != nil && nodes[0].Mark.MountPoint() != mount {
			t.Errorf("%s comes back as %s", mount, nodes[0].Mark.MountPoint())
		}
	}
}
