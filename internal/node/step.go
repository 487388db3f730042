package node

import (
	"context"
	"fmt"
	"strings"

	"ambientlab/internal/docker"
	"ambientlab/internal/engine"
)

// Step returns the step that tunes the nodes that nodes returns. It has no Undo: the values belong to the Docker host,
// other programs may need them, and a reboot restores the host's own. containers lists the nodes in a shell, for the
// commands that have the same effect; empty means that there are none.
func Step(
	id, title string, needs []string, api docker.Execer,
	nodes func(context.Context) ([]Node, error), containers string, settings []Sysctl,
) engine.Step {
	return engine.Step{
		ID: id, Title: title, Needs: needs,
		Check: func(ctx context.Context) (engine.Status, error) {
			results, err := check(ctx, api, nodes, settings)
			if err != nil {
				return engine.Status{}, err
			}
			low, values := 0, make([]string, 0, len(results))
			for _, r := range results {
				values = append(values, r.String())
				if !r.Holds() {
					low++
				}
			}
			if len(results) == 0 {
				return engine.Status{Done: true, Message: "not needed: no node is a container of this Docker engine"},
					nil
			}
			return engine.Status{Done: low == 0, Message: strings.Join(values, ", ")}, nil
		},
		Do: func(ctx context.Context) error {
			found, err := nodes(ctx)
			if err != nil {
				return err
			}
			results, err := Tune(ctx, api, found, settings)
			said := false
			for _, r := range results {
				if !r.Changed() {
					continue
				}
				engine.Changed(ctx, r.change(r.New))
				if !said {
					engine.Tell(ctx, "%s", HostWide)
					said = true
				}
			}
			return err
		},
		Preview: func(ctx context.Context) ([]engine.Change, error) {
			results, err := check(ctx, api, nodes, settings)
			var changes []engine.Change
			for _, r := range results {
				if !r.Holds() {
					changes = append(changes, r.change(r.Want))
				}
			}
			return changes, err
		},
		Explain: func() []string {
			if containers == "" {
				return nil
			}
			var lines []string
			for _, s := range settings {
				lines = append(lines, fmt.Sprintf(
					`for node in %[1]s; do docker exec "$node" `+
						`sh -c 'test "$(sysctl -n %[2]s)" -ge %[3]d || sysctl -w %[2]s=%[3]d'; done`,
					containers,
					s.Key,
					s.Min,
				))
			}
			return lines
		},
	}
}

func (r Result) change(to int64) engine.Change {
	return engine.Change{
		Object: "node " + r.Node, Action: engine.Update, Detail: fmt.Sprintf("%s %d -> %d", r.Key, r.Old, to),
	}
}

func check(
	ctx context.Context, api docker.Execer, nodes func(context.Context) ([]Node, error), settings []Sysctl,
) ([]Result, error) {
	found, err := nodes(ctx)
	if err != nil {
		return nil, err
	}
	return Check(ctx, api, found, settings)
}
