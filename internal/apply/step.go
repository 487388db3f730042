package apply

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// Step returns the step that applies a part. It is done when nothing would change and, for Objects, all of them are
// ready. Doing it makes the changes and waits; undoing it removes the part. The objects of a part have the step's ID as
// their part's name. Check, Preview and Do share the changes that are computed once.
func Step(connect func(context.Context) (*Client, error), id, title string, needs []string, part Part) engine.Step {
	s := &step{connect: connect, id: id, part: part}
	return engine.Step{
		ID: id, Title: title, Needs: needs,
		Check: s.check, Do: s.do, Undo: s.undo, Preview: s.preview, Explain: s.explain,
	}
}

type step struct {
	connect func(context.Context) (*Client, error)
	id      string
	part    Part

	mu sync.Mutex
	// computed is what Check found, for the Do or the Preview after it.
	computed *changeSet
}

// connectOrNil connects to the cluster. Where there is none the client is nil, which is no error.
func (s *step) connectOrNil(ctx context.Context) (*Client, error) {
	c, err := s.connect(ctx)
	if problem.Is(err, problem.ClusterNone) {
		return nil, nil
	}
	return c, err
}

// keep keeps a change set, or none, for the next call of changes.
func (s *step) keep(computed *changeSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.computed = computed
}

// changes returns the change set that Check has kept, once, or else computes one.
func (s *step) changes(ctx context.Context, c *Client) (*changeSet, error) {
	s.mu.Lock()
	kept := s.computed
	s.computed = nil
	s.mu.Unlock()
	if kept != nil && kept.client == c {
		return kept, nil
	}
	return c.changes(ctx, s.id, s.part)
}

func (s *step) check(ctx context.Context) (engine.Status, error) {
	s.keep(nil)
	c, err := s.connectOrNil(ctx)
	if err != nil {
		return engine.Status{}, err
	}
	if c == nil {
		return engine.Status{Message: "there is no cluster yet whose API server could check these objects"}, nil
	}
	computed, err := c.changes(ctx, s.id, s.part)
	if err != nil {
		return engine.Status{}, err
	}
	changes := computed.missing()
	if len(changes) == 0 {
		if changes, err = computed.judge(ctx); err != nil {
			return engine.Status{}, err
		}
	}
	s.keep(computed)
	if len(changes) > 0 {
		return engine.Status{Message: summary(changes)}, nil
	}
	return c.status(ctx, computed)
}

// status is that of a part without changes.
func (c *Client) status(ctx context.Context, computed *changeSet) (engine.Status, error) {
	switch objs := computed.objects(); {
	case !computed.prune:
		return engine.Status{Done: true, Message: "set"}, nil
	case len(objs) == 0:
		return engine.Status{Done: true, Message: "not installed (not requested)"}, nil
	default:
		reason, err := c.reason(ctx, computed.awaited())
		if err != nil || reason != "" {
			return engine.Status{Message: reason}, err
		}
		return engine.Status{Done: true, Message: fmt.Sprintf("%d objects, no changes", len(objs))}, nil
	}
}

func (s *step) do(ctx context.Context) error {
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	computed, err := s.changes(ctx, c)
	if err != nil {
		return err
	}
	if _, err := computed.apply(ctx); err != nil {
		return err
	}
	if !computed.prune {
		return nil // the object, and whether it is ready, may be the business of others
	}
	if err := c.waitFor(ctx, computed.awaited()); err != nil {
		return fmt.Errorf("waiting for %s: %w", s.id, err)
	}
	return nil
}

func (s *step) undo(ctx context.Context) error {
	s.keep(nil)
	c, err := s.connect(ctx)
	if err != nil {
		return err
	}
	return s.part.remove(ctx, c, s.id)
}

func (s *step) preview(ctx context.Context) ([]engine.Change, error) {
	c, err := s.connectOrNil(ctx)
	if err != nil {
		return nil, err
	}
	if c == nil {
		return previewWithoutCluster(ctx, s.part)
	}
	computed, err := s.changes(ctx, c)
	if err != nil {
		return nil, err
	}
	return computed.judge(ctx)
}

// previewWithoutCluster lists what a part would change in a cluster that does not exist yet: every object is created,
// but for those on which an Overlay sets fields.
func previewWithoutCluster(ctx context.Context, part Part) ([]engine.Change, error) {
	writes, _, err := part.desired(ctx, &Client{mapper: noCluster{}})
	if err != nil {
		return nil, err
	}
	var changes []engine.Change
	for _, w := range writes {
		change := engine.Change{Object: idOf(w.desired).String(), Action: engine.Create}
		if w.overlay != "" {
			change.Action, change.Detail = engine.Update, "overlay "+w.overlay
		}
		changes = append(changes, change)
	}
	return changes, nil
}

// summary says what differs: the first change in full, the number of the others.
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

// explainTime limits the rendering of a Set for Explain, which has no context.
const explainTime = 30 * time.Second

func (s *step) explain() []string {
	ctx, cancel := context.WithTimeout(context.Background(), explainTime)
	defer cancel()
	return s.part.explain(ctx, s.id)
}

// explain returns the commands that do for a Set what its step does.
func (o Objects) explain(ctx context.Context, id string) []string {
	set, err := o(ctx)
	if err != nil {
		return []string{"kubectl apply --server-side -f " + id + ".yaml"}
	}
	lines := []string{applyCommand("kubectl", ManagedBy, set.Name, contents(set))}
	for _, obj := range set.Objects {
		command := "kubectl"
		if obj.GetNamespace() != "" {
			command += " -n " + obj.GetNamespace()
		} else if set.Namespace != "" {
			command += " -n " + set.Namespace
		}
		kind := strings.ToLower(obj.GetKind())
		switch obj.GetKind() {
		case "Deployment", "DaemonSet", "StatefulSet":
			lines = append(lines, fmt.Sprintf("%s rollout status %s/%s", command, kind, obj.GetName()))
		case "Gateway":
			if obj.GroupVersionKind().Group == gatewayGroup {
				lines = append(lines, command+" wait --for=condition=Programmed gateway/"+obj.GetName())
			}
		case "Job":
			lines = append(lines, command+" wait --for=condition=Complete job/"+obj.GetName())
		}
	}
	return lines
}

func applyCommand(kubectl, manager, file, comment string) string {
	return fmt.Sprintf("%s apply --server-side --field-manager=%s -f %s.yaml   # %s", kubectl, manager, file, comment)
}

// named limits how many objects an explanation names.
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

// explain returns kubectl's own command for what an overlay mostly is: labels.
func (o Overlay) explain(context.Context, string) []string {
	command := "kubectl"
	if ns := o.Object.GetNamespace(); ns != "" {
		command += " -n " + ns
	}
	kind, name := strings.ToLower(o.Object.GetKind()), o.Object.GetName()
	labels := o.Object.GetLabels()
	if len(labels) == 0 || len(o.Object.Object) > 3 {
		return []string{applyCommand(command, o.manager(), o.Name, idOf(o.Object).String())}
	}
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		name += " " + key + "=" + labels[key]
	}
	return []string{fmt.Sprintf("%s label %s %s", command, kind, name)}
}
