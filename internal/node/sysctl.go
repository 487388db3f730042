package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"ambientlab/internal/docker"
	"ambientlab/internal/problem"
)

// Sysctl is a kernel setting and the smallest value that the lab accepts.
type Sysctl struct {
	// Key is written with dots, as in sysctl.
	Key string
	// Min is the smallest accepted value. A higher value is kept.
	Min int64
}

func (s Sysctl) path() string { return "/proc/sys/" + strings.ReplaceAll(s.Key, ".", "/") }

// Inotify returns the settings for a lab with several nodes. Every kubelet, containerd, istio-cni and Envoy uses
// inotify instances. With the usual limit of 128 per user they fail with "too many open files"
// (https://kind.sigs.k8s.io/docs/user/known-issues/#pod-errors-due-to-too-many-open-files).
func Inotify() []Sysctl {
	return []Sysctl{
		{Key: "fs.inotify.max_user_instances", Min: 1024},
		{Key: "fs.inotify.max_user_watches", Min: 1048576},
	}
}

// HostWide is the note for the user after a value was raised.
const HostWide = "the fs.inotify limits belong to the Docker host: every container shares them, " +
	"they stay when the lab is deleted, and a reboot restores the host's own values"

// Result is one setting on one node.
type Result struct {
	Node, Key string
	// Old is the value before, New the value after; they are equal if it was not raised. Want is Sysctl.Min.
	Old, New, Want int64
}

// Changed reports whether the value was raised.
func (r Result) Changed() bool { return r.Old != r.New }

// Holds reports whether the value is at least Want.
func (r Result) Holds() bool { return r.New >= r.Want }

// String returns the setting as text for people.
func (r Result) String() string {
	if r.Changed() {
		return fmt.Sprintf("%s: %s %d -> %d", r.Node, r.Key, r.Old, r.New)
	}
	return fmt.Sprintf("%s: %s is %d", r.Node, r.Key, r.New)
}

// Check reads the settings on every node and changes nothing. Its error joins one problem.NodeTuneFailed per failed
// setting.
func Check(ctx context.Context, api docker.Execer, nodes []Node, settings []Sysctl) ([]Result, error) {
	return each(unlimited, nodes, settings, func(n Node, s Sysctl) (Result, error) {
		value, err := read(ctx, api, n, s)
		return Result{Node: n.Name, Key: s.Key, Old: value, New: value, Want: s.Min}, err
	})
}

// Tune raises each setting that is lower than its Min on each node, and reads it back. It never lowers a setting. After
// a failure it continues with the next setting. Its error joins one problem.NodeTuneFailed per failed setting, with
// node, key and output.
func Tune(ctx context.Context, api docker.Execer, nodes []Node, settings []Sysctl) ([]Result, error) {
	// One after the other: the containers share the values of the host, so a change on the first node is in effect on
	// the others.
	return each(1, nodes, settings, func(n Node, s Sysctl) (Result, error) {
		r := Result{Node: n.Name, Key: s.Key, Want: s.Min}
		var err error
		if r.Old, err = read(ctx, api, n, s); err != nil {
			return r, err
		}
		r.New = r.Old
		if r.Holds() {
			return r, nil
		}
		// With the redirection of the shell, the node image needs no sysctl program.
		_, err = docker.Exec(ctx, api, n.ContainerID, "sh", "-c", `echo "$1" > "$0"`, s.path(),
			strconv.FormatInt(s.Min, 10))
		if err != nil {
			return r, failed(err, n, s, "raising %s from %d to %d on node %s", s.Key, r.Old, s.Min, n.Name)
		}
		if r.New, err = read(ctx, api, n, s); err != nil {
			return r, err
		}
		if !r.Holds() {
			return r, failed(nil, n, s, "node %s accepted %s=%d without an error, but its value is %d", n.Name, s.Key,
				s.Min, r.New)
		}
		return r, nil
	})
}

// unlimited is a limit of each (errgroup.Group, SetLimit).
const unlimited = -1

// each runs do on every node container and setting, as many at a time as limit says, and gives the results in order.
func each(limit int, nodes []Node, settings []Sysctl, do func(Node, Sysctl) (Result, error)) ([]Result, error) {
	nodes = slices.DeleteFunc(slices.Clone(nodes), func(n Node) bool {
		return n.ContainerID == "" || n.Role == LoadBalancer
	})
	found := make([]Result, len(nodes)*len(settings))
	failures := make([]error, len(found))
	var group errgroup.Group
	group.SetLimit(limit)
	for i := range found {
		group.Go(func() error {
			found[i], failures[i] = do(nodes[i/len(settings)], settings[i%len(settings)])
			return nil // a failure ends nothing
		})
	}
	_ = group.Wait()
	var results []Result
	for i, r := range found {
		if failures[i] == nil {
			results = append(results, r)
		}
	}
	return results, errors.Join(failures...)
}

func read(ctx context.Context, api docker.Execer, n Node, s Sysctl) (int64, error) {
	out, err := docker.Exec(ctx, api, n.ContainerID, "cat", s.path())
	if err != nil {
		return 0, failed(err, n, s, "reading %s on node %s", s.Key, n.Name)
	}
	value, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		return 0, failed(nil, n, s, "%s on node %s is %q, which is not a number", s.Key, n.Name, strings.TrimSpace(out))
	}
	return value, nil
}

func failed(err error, n Node, s Sysctl, format string, args ...any) error {
	return problem.New(problem.NodeTuneFailed, err, format, args...).With(
		fmt.Sprintf("To try it by hand, run `docker exec %s sysctl -w %s=%d`.", n.Name, s.Key, s.Min))
}
