package apply

import (
	"context"
	"fmt"
	"strings"
	"time"

	"ambientlab/internal/engine"
)

// explainTime bounds the rendering of a Set for Explain, which has no context.
const explainTime = 30 * time.Second

// Step is the step that brings a Set into the cluster: it holds when a dry run changes
// nothing and everything is ready; doing it applies what differs and waits; undoing it
// deletes the part. That part bears the step's ID as its name; deleting it renders
// nothing, for what was installed from files may have to go when they no longer exist.
func Step(connect func(context.Context) (*Client, error), id, title string, needs []string, set func(context.Context) (Set, error)) engine.Step {
	with := func(ctx context.Context, f func(*Client, Set) error) error {
		c, err := connect(ctx)
		if err != nil {
			return err
		}
		s, err := set(ctx)
		if err != nil {
			return err
		}
		if s.Name != id {
			return fmt.Errorf("step %s applies part %s, which undoing it would not find", id, s.Name)
		}
		return f(c, s)
	}
	return engine.Step{
		ID: id, Title: title, Needs: needs,
		Check: func(ctx context.Context) (engine.Status, error) {
			c, err := reach(ctx, connect)
			if err != nil {
				return engine.Status{}, err
			}
			if c == nil {
				return engine.Status{Message: unjudged}, nil
			}
			s, err := set(ctx)
			if err != nil {
				return engine.Status{}, err
			}
			return check(ctx, c, s)
		},
		Do: func(ctx context.Context) error {
			return with(ctx, func(c *Client, s Set) error {
				if _, err := c.Apply(ctx, s); err != nil {
					return err
				}
				return c.Wait(ctx, s)
			})
		},
		Undo: func(ctx context.Context) error {
			c, err := connect(ctx)
			if err != nil {
				return err
			}
			_, err = c.Delete(ctx, Set{Name: id})
			return err
		},
		Preview: func(ctx context.Context) ([]engine.Change, error) {
			c, err := reach(ctx, connect)
			if err != nil {
				return nil, err
			}
			s, err := set(ctx)
			if err != nil {
				return nil, err
			}
			if c == nil {
				return foresee(s)
			}
			return c.Diff(ctx, s)
		},
		Explain: func() []string {
			ctx, cancel := context.WithTimeout(context.Background(), explainTime)
			defer cancel()
			s, err := set(ctx)
			if err != nil {
				return []string{"kubectl apply --server-side -f " + id + ".yaml"}
			}
			return Explain(s)
		},
	}
}

func check(ctx context.Context, c *Client, s Set) (engine.Status, error) {
	objs, live, err := c.current(ctx, s)
	if err != nil {
		return engine.Status{}, err
	}
	// What is not there at all needs no dry run to be found wanting, and one of a large CRD takes the API server about as
	// long as its creation.
	changes := absent(objs, live)
	if len(changes) == 0 {
		if changes, err = c.diff(ctx, s, objs, live); err != nil {
			return engine.Status{}, err
		}
	}
	if len(changes) > 0 {
		return engine.Status{Message: summary(changes)}, nil
	}
	reason, err := c.Ready(ctx, s)
	if err != nil || reason != "" {
		return engine.Status{Message: reason}, err
	}
	if len(s.Objects) == 0 {
		return engine.Status{Done: true, Message: "nothing of it is there, as it should be"}, nil
	}
	return engine.Status{Done: true, Message: fmt.Sprintf("%d objects as they should be", len(s.Objects))}, nil
}

// summary says what differs: the first change in full, the others counted.
func summary(changes []engine.Change) string {
	first := changes[0]
	text := first.Action + " " + first.Object
	if first.Detail != "" {
		text += " (" + first.Detail + ")"
	}
	if more := len(changes) - 1; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return "to do: " + text
}

// Explain gives the commands that do for a Set what Apply and Wait do.
func Explain(set Set) []string {
	lines := []string{fmt.Sprintf("kubectl apply --server-side --field-manager=%s -f %s.yaml   # %s", ManagedBy, set.Name, contents(set))}
	for _, obj := range set.Objects {
		command := "kubectl"
		if obj.GetNamespace() != "" {
			command += " -n " + obj.GetNamespace()
		} else if set.Namespace != "" {
			command += " -n " + set.Namespace
		}
		switch obj.GetKind() {
		case "Deployment", "DaemonSet", "StatefulSet":
			lines = append(lines, fmt.Sprintf("%s rollout status %s/%s", command, strings.ToLower(obj.GetKind()), obj.GetName()))
		case "Gateway":
			if obj.GroupVersionKind().Group == gatewayGroup {
				lines = append(lines, fmt.Sprintf("%s wait --for=condition=Programmed gateway/%s", command, obj.GetName()))
			}
		case "Job":
			lines = append(lines, fmt.Sprintf("%s wait --for=condition=Complete job/%s", command, obj.GetName()))
		}
	}
	return lines
}

// named bounds how many objects Explain names.
const named = 6

func contents(set Set) string {
	names := make([]string, 0, named)
	for _, obj := range set.Objects[:min(named, len(set.Objects))] {
		names = append(names, idOf(obj).String())
	}
	text := strings.Join(names, ", ")
	if more := len(set.Objects) - len(names); more > 0 {
		text += fmt.Sprintf(", and %d more", more)
	}
	return text
}
