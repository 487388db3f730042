package session

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/apply"
	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// Render gives the objects of a step.
type Render func(context.Context) ([]*unstructured.Unstructured, error)

// SetStep is a step that applies a set of objects and waits until they are ready. Its decorators, innermost first: a
// Gateway that istiod overlooked is noticed and istiod notified; pods that are only reported as running are called
// simulated.
func (s *Session) SetStep(id, title string, needs []string, render Render) engine.Step {
	return s.SetStepWithout(id, title, needs, render, nil)
}

// SetStepWithout is a SetStep that does not wait for some of its objects: those that cannot become ready yet.
func (s *Session) SetStepWithout(
	id, title string, needs []string, render Render, notAwaited func(*unstructured.Unstructured) bool,
) engine.Step {
	set := func(ctx context.Context) (apply.Set, error) {
		rendered, err := render(ctx)
		if err != nil {
			return apply.Set{}, err
		}
		return apply.Set{
			Name: id, Objects: s.Adapt(rendered), Namespace: s.Config.Namespace, Force: s.Traits.Owned,
			NotAwaited: notAwaited, BeforePods: s.beforePods(),
		}, nil
	}
	step := apply.Step(s.Connect, id, title, needs, apply.Objects(set))
	step.Timeout = s.Settings.StepTimeout()
	step.Files = func(ctx context.Context) (map[string][]byte, error) {
		return apply.Files(ctx, s.Connect, s.Settings.Cluster, id, apply.Objects(set))
	}
	return s.simulated(s.notifying(step, set), set)
}

// beforePods waits until the nodes of a cluster that is created in the same run can run pods. Objects without pods are
// applied while the nodes still join.
func (s *Session) beforePods() func(context.Context) error {
	waiter, ok := s.provider.(cluster.NodeWaiter)
	if !ok || s.Info.Exists && s.Info.State != cluster.Partial {
		return nil
	}
	return waiter.AwaitNodes
}

// OverlayStep is a step that sets fields of an object which may belong to someone else.
func (s *Session) OverlayStep(id, title string, needs []string, overlay apply.Overlay) engine.Step {
	step := apply.Step(s.Connect, id, title, needs, overlay)
	step.Timeout = s.Settings.StepTimeout()
	step.Files = func(ctx context.Context) (map[string][]byte, error) {
		return apply.Files(ctx, s.Connect, s.Settings.Cluster, id, overlay)
	}
	return step
}

// Adapt replaces what the lab's cluster cannot take.
func (s *Session) Adapt(list []*unstructured.Unstructured) []*unstructured.Unstructured {
	adapter, ok := s.provider.(cluster.Adapter)
	if !ok {
		return list
	}
	return adapter.Adapt(slices.Clone(list))
}

// simulated makes a step say that its pods do not really run, where that is so.
func (s *Session) simulated(step engine.Step, set func(context.Context) (apply.Set, error)) engine.Step {
	adapter, ok := s.provider.(cluster.Adapter)
	check := step.Check
	if !ok || check == nil {
		return step
	}
	step.Check = func(ctx context.Context) (engine.Status, error) {
		status, err := check(ctx)
		if err != nil || !status.Done {
			return status, err
		}
		rendered, err := set(ctx)
		if err != nil {
			return status, err
		}
		if slices.ContainsFunc(rendered.Objects, adapter.Simulated) {
			status.Message = "simulated: its objects exist, its pods run nothing"
		}
		return status, nil
	}
	return step
}

// notifying makes a step that applies a Gateway notify istiod where istiod has overlooked that the Gateway's pods are
// ready, and then wait once more. Otherwise only a restart of istiod would help.
func (s *Session) notifying(step engine.Step, set func(context.Context) (apply.Set, error)) engine.Step {
	do := step.Do
	step.Do = func(ctx context.Context) error {
		err := do(ctx)
		if !problem.Is(err, problem.GatewayOverlooked) || ctx.Err() != nil {
			return err
		}
		if err := s.notify(ctx, set); err != nil {
			return err
		}
		return do(ctx)
	}
	return step
}

// notify makes istiod look again at every Gateway of a set.
func (s *Session) notify(ctx context.Context, set func(context.Context) (apply.Set, error)) error {
	rendered, err := set(ctx)
	if err != nil {
		return err
	}
	m, err := s.Mesh(ctx)
	if err != nil {
		return err
	}
	for _, object := range rendered.Objects {
		if object.GroupVersionKind().GroupKind() != GatewayKind.GroupKind() {
			continue
		}
		namespace := object.GetNamespace()
		if namespace == "" {
			namespace = rendered.Namespace
		}
		services, err := m.Notify(ctx, namespace, object.GetName())
		if err != nil {
			return err
		}
		engine.Changed(ctx, engine.Change{
			Object: "Gateway " + object.GetName(), Action: engine.Update,
			Detail: "istiod did not see its ready pods; notified by a label on Service " + strings.Join(services, ", "),
		})
	}
	return nil
}

// ProcessStep runs a component as a process where the provider does that; elsewhere pods run it, and there is no such
// step. It has no timeout, since its program may have to be built first.
func (s *Session) ProcessStep(id, title, component string, needs ...string) engine.Step {
	runner, ok := s.provider.(cluster.ProcessRunner)
	if !ok {
		return engine.Step{}
	}
	return engine.Step{
		ID: id, Title: title, Needs: needs,
		Check: func(ctx context.Context) (engine.Status, error) {
			running, message, err := runner.Started(ctx, component)
			return engine.Status{Done: running, Message: message}, err
		},
		Do:   func(ctx context.Context) error { return runner.Start(ctx, component) },
		Undo: func(ctx context.Context) error { return runner.Stop(ctx, component) },
		Explain: func() []string {
			return []string{"# mage sm:install runs " + component + " as a process of this machine"}
		},
		Preview: func(ctx context.Context) ([]engine.Change, error) {
			running, message, err := runner.Started(ctx, component)
			if running || err != nil {
				return nil, err
			}
			return []engine.Change{{Object: "process " + component, Action: engine.Run, Detail: message}}, nil
		},
	}
}

// StopStep ends the process of a component that is no longer wanted.
func (s *Session) StopStep(id, title, component string, needs ...string) engine.Step {
	runner, ok := s.provider.(cluster.ProcessRunner)
	if !ok {
		return engine.Step{}
	}
	return engine.Step{
		ID: id, Title: title, Needs: needs, Timeout: s.Settings.ShortStepTimeout(),
		Check: func(ctx context.Context) (engine.Status, error) {
			running, message, err := runner.Started(ctx, component)
			return engine.Status{Done: !running, Message: message}, err
		},
		Do: func(ctx context.Context) error { return runner.Stop(ctx, component) },
	}
}
