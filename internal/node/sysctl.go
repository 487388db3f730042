package node

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"ambientlab/internal/docker"
	"ambientlab/internal/problem"
)

// Sysctl is a kernel setting and the least value the lab wants for it.
type Sysctl struct {
	// Key is written with dots, as sysctl does.
	Key string
	// Min is the least value wanted; a higher one is left alone.
	Min int64
}

func (s Sysctl) path() string { return "/proc/sys/" + strings.ReplaceAll(s.Key, ".", "/") }

// Inotify is what a lab of several nodes needs: every kubelet, containerd, istio-cni
// and Envoy holds inotify instances, and the usual 128 for each user runs out, which
// shows as "too many open files"
// (https://kind.sigs.k8s.io/docs/user/known-issues/#pod-errors-due-to-too-many-open-files).
func Inotify() []Sysctl {
	return []Sysctl{
		{Key: "fs.inotify.max_user_instances", Min: 1024},
		{Key: "fs.inotify.max_user_watches", Min: 1048576},
	}
}

// HostWide is to be said once where values are changed.
const HostWide = "fs.inotify limits are the Docker host's, not the node's: they are shared by every container, " +
	"outlive the lab, and are back to the host's own setting after a reboot"

// Result is one setting on one node.
type Result struct {
	Node, Key string
	// Old is what was there, New what was read back; they are equal where nothing
	// had to be done. Want is the least value asked for.
	Old, New, Want int64
}

// Changed tells whether the value was raised.
func (r Result) Changed() bool { return r.Old != r.New }

// Holds tells whether the value is at least what is wanted.
func (r Result) Holds() bool { return r.New >= r.Want }

// String reports the setting for people.
func (r Result) String() string {
	if r.Changed() {
		return fmt.Sprintf("%s: %s %d -> %d", r.Node, r.Key, r.Old, r.New)
	}
	return fmt.Sprintf("%s: %s is %d", r.Node, r.Key, r.New)
}

// Check reads the settings on every node and changes nothing.
func Check(ctx context.Context, api docker.Execer, nodes []Node, settings []Sysctl) ([]Result, error) {
	return each(nodes, settings, func(n Node, s Sysctl) (Result, error) {
		value, err := read(ctx, api, n, s)
		return Result{Node: n.Name, Key: s.Key, Old: value, New: value, Want: s.Min}, err
	})
}

// Tune raises the settings on every node where they are lower than wanted, never
// lowers one, and reads each back. It goes on after a failure, and joins the
// failures: each is a problem that names node, key and output.
func Tune(ctx context.Context, api docker.Execer, nodes []Node, settings []Sysctl) ([]Result, error) {
	return each(nodes, settings, func(n Node, s Sysctl) (Result, error) {
		r := Result{Node: n.Name, Key: s.Key, Want: s.Min}
		var err error
		if r.Old, err = read(ctx, api, n, s); err != nil {
			return r, err
		}
		r.New = r.Old
		if r.Holds() {
			return r, nil
		}
		// The shell's redirection needs no sysctl program in the node image.
		_, err = docker.Exec(ctx, api, n.ContainerID, "sh", "-c", `echo "$1" > "$0"`, s.path(), strconv.FormatInt(s.Min, 10))
		if err != nil {
			return r, failed(err, n, s, "raising %s from %d to %d on node %s", s.Key, r.Old, s.Min, n.Name)
		}
		if r.New, err = read(ctx, api, n, s); err != nil {
			return r, err
		}
		if !r.Holds() {
			return r, failed(nil, n, s, "node %s took %s=%d without an error, but reads it back as %d", n.Name, s.Key, s.Min, r.New)
		}
		return r, nil
	})
}

// each runs do on every container node and setting, one after the other: the values
// are the host's, so the first node's change is what the others then find.
func each(nodes []Node, settings []Sysctl, do func(Node, Sysctl) (Result, error)) ([]Result, error) {
	var results []Result
	var errs []error
	for _, n := range nodes {
		if n.ContainerID == "" || n.Role == LoadBalancer {
			continue
		}
		for _, s := range settings {
			r, err := do(n, s)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			results = append(results, r)
		}
	}
	return results, errors.Join(errs...)
}

func read(ctx context.Context, api docker.Execer, n Node, s Sysctl) (int64, error) {
	out, err := docker.Exec(ctx, api, n.ContainerID, "cat", s.path())
	if err != nil {
		return 0, failed(err, n, s, "reading %s on node %s", s.Key, n.Name)
	}
	value, err := strconv.ParseInt(strings.TrimSpace(out), 10, 64)
	if err != nil {
		return 0, failed(nil, n, s, "%s on node %s reads %q, which is not a number", s.Key, n.Name, strings.TrimSpace(out))
	}
	return value, nil
}

func failed(err error, n Node, s Sysctl, format string, args ...any) error {
	return problem.New(problem.NodeTuneFailed, err, format, args...).With(
		fmt.Sprintf("To see for yourself: docker exec %s sysctl -w %s=%d", n.Name, s.Key, s.Min))
}
