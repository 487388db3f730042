package lab

import (
	"context"
	"strings"

	"ambientlab/internal/apply"
	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// reminding makes a step that applies a Gateway remind istiod of it where istiod has overlooked that its pods are
// ready, and then wait once more. Only a restart of istiod would help otherwise.
func (l *Lab) reminding(step engine.Step, set func(context.Context) (apply.Set, error)) engine.Step {
	do := step.Do
	step.Do = func(ctx context.Context) error {
		err := do(ctx)
		if !problem.Is(err, problem.GatewayOverlooked) || ctx.Err() != nil {
			return err
		}
		if err := l.remind(ctx, set); err != nil {
			return err
		}
		return do(ctx)
	}
	return step
}

// remind reminds istiod of every Gateway in a set.
func (l *Lab) remind(ctx context.Context, set func(context.Context) (apply.Set, error)) error {
	rendered, err := set(ctx)
	if err != nil {
		return err
	}
	m, err := l.mesh(ctx)
	if err != nil {
		return err
	}
	for _, object := range rendered.Objects {
		if object.GroupVersionKind().GroupKind() != gatewayKind.GroupKind() {
			continue
		}
		namespace := object.GetNamespace()
		if namespace == "" {
			namespace = rendered.Namespace
		}
		services, err := m.Remind(ctx, namespace, object.GetName())
		if err != nil {
			return err
		}
		engine.Changed(ctx, engine.Change{
			Object: "Gateway " + object.GetName(), Action: engine.Update,
			Detail: "istiod did not see its ready pods; reminded it by a label on Service " + strings.Join(services, ", "),
		})
	}
	return nil
}
