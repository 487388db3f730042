package apply

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"

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
	// computed is what Check found, for the Do or the Preview after it; done is what Do carried out, for the Check
	// after it.
	computed, done *changeSet
}

// connectOrNil connects to the cluster. Where there is none the client is nil, which is no error.
func (s *step) connectOrNil(ctx context.Context) (*Client, error) {
	c, err := s.connect(ctx)
	if problem.Is(err, problem.ClusterNone) {
		return nil, nil
	}
	return c, err
}

// keep keeps a change set, or none, for the next call of changes, and one that was carried out, or none, for the next
// Check. It returns the one that was kept for that.
func (s *step) keep(computed, done *changeSet) (before *changeSet) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before = s.done
	s.computed, s.done = computed, done
	return before
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
	done := s.keep(nil, nil)
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
	computed.recall(done)
	changes := computed.missing()
	if len(changes) == 0 {
		if changes, err = computed.judge(ctx); err != nil {
			return engine.Status{}, err
		}
	}
	s.keep(computed, nil)
	if len(changes) > 0 {
		return engine.Status{Message: summary(changes), Planned: true}, nil
	}
	status, err := c.status(ctx, computed)
	if err != nil || status.Done || done == nil {
		return status, err
	}
	// Do waited until all objects were ready, and a controller has begun another change since: istiod writes the
	// Deployment of a Gateway more than once.
	if err := s.await(ctx, c, computed); err != nil {
		return engine.Status{}, err
	}
	return engine.Status{Done: true, Message: count(len(computed.objects()))}, nil
}

// status is that of a part without changes.
func (c *Client) status(ctx context.Context, computed *changeSet) (engine.Status, error) {
	switch objs := computed.objects(); {
	case !computed.prune:
		return engine.Status{Done: true, Message: "set"}, nil
	case len(objs) == 0:
		return engine.Status{Done: true, Message: "not installed (not requested)"}, nil
	default:
		awaited, live := computed.awaited()
		reason, err := c.reason(ctx, awaited, live)
		if err != nil || reason != "" {
			return engine.Status{Message: reason}, err
		}
		return engine.Status{Done: true, Message: count(len(objs))}, nil
	}
}

func count(objects int) string {
	if objects == 1 {
		return "1 object"
	}
	return fmt.Sprintf("%d objects", objects)
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
	s.keep(nil, computed)
	if !computed.prune {
		return nil // the object, and whether it is ready, may be the business of others
	}
	return s.await(ctx, c, computed)
}

// await waits until the objects of a change set that was carried out are ready.
func (s *step) await(ctx context.Context, c *Client, computed *changeSet) error {
	awaited, _ := computed.awaited()
	// What is ready as soon as it exists is ready: the API server has answered the write.
	awaited = slices.DeleteFunc(awaited, func(obj *unstructured.Unstructured) bool { return !c.hasState(obj) })
	if err := c.waitFor(ctx, awaited); err != nil {
		return fmt.Errorf("waiting for %s: %w", s.id, err)
	}
	return nil
}

func (s *step) undo(ctx context.Context) error {
	s.keep(nil, nil)
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
	text := changes[0].String()
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
		return []string{applyCommand(ManagedBy, false, id, err.Error())}
	}
	if len(set.Objects) == 0 {
		return nil
	}
	lines := []string{applyCommand(ManagedBy, set.Force, id, contents(set))}
	for _, obj := range set.Objects {
		command := "kubectl"
		if obj.GetNamespace() != "" {
			command += " -n " + obj.GetNamespace()
		} else if set.Namespace != "" {
			command += " -n " + set.Namespace
		}
		if set.NotAwaited != nil && set.NotAwaited(obj) {
			continue
		}
		kind := strings.ToLower(obj.GetKind())
		switch obj.GetKind() {
		case "Deployment", "DaemonSet", "StatefulSet":
			lines = append(
				lines,
				fmt.Sprintf("%s rollout status --timeout=%s %s/%s", command, kubectlTimeout, kind, obj.GetName()),
			)
		case "Gateway":
			if obj.GroupVersionKind().Group == gatewayGroup { // Istio has a kind of that name too
				// A Gateway can be programmed before its pods are ready. The label is Gateway API's own (GEP-1762).
				lines = append(lines, waitCommand(command, "Programmed", "gateways."+gatewayGroup, obj.GetName()),
					fmt.Sprintf("%s wait --timeout=%s --for=condition=Ready pods -l %s/gateway-name=%s", command,
						kubectlTimeout, gatewayGroup, obj.GetName()))
			}
		case "Job":
			lines = append(lines, waitCommand(command, "Complete", kind, obj.GetName()))
		}
	}
	return lines
}

// kubectlTimeout is how long a command waits: kubectl's own 30 seconds are short for an image that is pulled.
const kubectlTimeout = "10m"

func waitCommand(kubectl, condition, kind, name string) string {
	return fmt.Sprintf("%s wait --timeout=%s --for=condition=%s %s/%s", kubectl, kubectlTimeout, condition, kind, name)
}

func applyCommand(manager string, force bool, file, comment string) string {
	command := "kubectl apply --server-side --field-manager=" + manager
	if force {
		command += " --force-conflicts"
	}
	return fmt.Sprintf("%s -f %s   # %s", command, fileName(file), strings.Join(strings.Fields(comment), " "))
}

// fileName is the file from which kubectl applies the part of a step.
func fileName(id string) string { return id + ".yaml" }

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

// explain returns the command that sets the fields of an overlay. `kubectl label` would set labels as another field
// manager.
func (o Overlay) explain(_ context.Context, id string) []string {
	comment := idOf(o.Object).String()
	labels := o.Object.GetLabels()
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		comment += ", label " + key + "=" + labels[key]
	}
	return []string{applyCommand(o.manager(), false, id, comment)}
}

// Files returns the file that the commands of a part's step name: the objects as this package applies them for the lab
// of that name. There is none where nothing is to be applied. Where there is no cluster, the objects are those for a
// new one.
func Files(
	ctx context.Context,
	connect func(context.Context) (*Client, error),
	lab, id string,
	part Part,
) (map[string][]byte, error) {
	s := &step{connect: connect, id: id, part: part}
	c, err := s.connectOrNil(ctx)
	if err != nil {
		return nil, err
	}
	var writes []*write
	if c != nil {
		computed, err := c.changes(ctx, id, part)
		if err != nil {
			return nil, err
		}
		writes = computed.writes
	} else {
		c = &Client{lab: lab, mapper: noCluster{}}
		if writes, _, err = part.desired(ctx, c); err != nil {
			return nil, err
		}
		for _, w := range writes {
			if w.overlay != "" && (!w.create || initialNamespace(w.desired)) {
				w.live = w.desired // by then it exists
			}
		}
	}
	if len(writes) == 0 {
		return nil, nil
	}
	var file bytes.Buffer
	for _, w := range writes {
		w.start()
		if w.live != nil && w.overlay == "" {
			if err := c.adopt(w); err != nil {
				return nil, err
			}
		}
		text, err := yaml.Marshal(w.obj.Object)
		if err != nil {
			return nil, fmt.Errorf("writing %s: %w", idOf(w.obj), err)
		}
		file.WriteString("---\n")
		file.Write(text)
	}
	return map[string][]byte{fileName(id): file.Bytes()}, nil
}

// initialNamespace tells whether an object is a namespace that every cluster has.
func initialNamespace(obj *unstructured.Unstructured) bool {
	return idOf(obj).String() == "Namespace default" || strings.HasPrefix(idOf(obj).String(), "Namespace kube-")
}
