package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"ambientlab/internal/engine"
)

// OverlayStep is the step that sets an overlay, and takes it back when undone.
func OverlayStep(connect func(context.Context) (*Client, error), id, title string, needs []string, o Overlay) engine.Step {
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
			change, err := c.DiffOverlay(ctx, o)
			if err != nil {
				return engine.Status{}, err
			}
			if change != nil {
				return engine.Status{Message: summary([]engine.Change{*change})}, nil
			}
			return engine.Status{Done: true, Message: "set"}, nil
		},
		Do: func(ctx context.Context) error {
			c, err := connect(ctx)
			if err != nil {
				return err
			}
			return c.ApplyOverlay(ctx, o)
		},
		Undo: func(ctx context.Context) error {
			c, err := connect(ctx)
			if err != nil {
				return err
			}
			return c.RemoveOverlay(ctx, o)
		},
		Preview: func(ctx context.Context) ([]engine.Change, error) {
			c, err := reach(ctx, connect)
			if err != nil {
				return nil, err
			}
			if c == nil {
				return foreseeOverlay(o)
			}
			change, err := c.DiffOverlay(ctx, o)
			if err != nil || change == nil {
				return nil, err
			}
			return []engine.Change{*change}, nil
		},
		Explain: func() []string { return []string{explainOverlay(o)} },
	}
}

// explainOverlay gives kubectl's own command for what an overlay mostly is: labels.
func explainOverlay(o Overlay) string {
	command := "kubectl"
	if ns := o.Object.GetNamespace(); ns != "" {
		command += " -n " + ns
	}
	kind, name := strings.ToLower(o.Object.GetKind()), o.Object.GetName()
	labels := o.Object.GetLabels()
	if len(labels) == 0 || len(o.Object.Object) > 3 {
		return fmt.Sprintf("%s apply --server-side --field-manager=%s -f %s.yaml   # %s", command, o.manager(), o.Name, idOf(o.Object))
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		name += " " + key + "=" + labels[key]
	}
	return fmt.Sprintf("%s label %s %s", command, kind, name)
}
