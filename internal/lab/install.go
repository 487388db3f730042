package lab

import (
	"context"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/apply"
	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
	"ambientlab/internal/lesson"
	"ambientlab/internal/node"
	"ambientlab/internal/session"
	"ambientlab/internal/upstream"
	"ambientlab/specs"
)

// Install creates or reuses the cluster and installs everything up to the first lesson.
func Install(ctx context.Context, env *session.Env) error {
	s, err := session.Open(ctx, env, session.MayBeAbsent)
	if err != nil {
		return err
	}
	c := newCharts(env, s.Provider())
	if err := checkBeforeInstall(ctx, s, c); err != nil {
		return err
	}
	result, err := s.Apply(ctx, installPlan(s, c))
	if err != nil {
		return err
	}
	if err := seeRestarted(ctx, s); err != nil {
		return err
	}
	if !s.Whole { // the verdicts name them
		s.TellSubstitutes(ctx)
	}
	tellSimulated(s)
	tellLeft(s, result)
	s.Next("mage sm:apps")
	return nil
}

// seeRestarted waits until the pods of lessons that are on are ready again, if they were restarted, and seen to be. The
// lessons are read now: the API server may not have run before.
func seeRestarted(ctx context.Context, s *session.Session) error {
	if !s.Info.Exists {
		return nil // a new lab has no lessons
	}
	s, err := s.Reread(ctx)
	if err != nil {
		return err
	}
	plan := lesson.PlanOfRestarted(ctx, s.With(session.AsInstalled))
	if len(plan.Steps) == 0 {
		return nil
	}
	_, err = s.Apply(ctx, plan)
	return err
}

// checkBeforeInstall refuses, before anything is changed, what cannot work: files of the user's that cannot be read,
// values that Istio's charts do not take, a bundle that lacks images or cannot be loaded, a cluster that the lab must
// not use, a Gateway API that is too old.
func checkBeforeInstall(ctx context.Context, s *session.Session, c *charts) error {
	if _, err := userObjects(s.Settings, s.Config.Namespace); err != nil {
		return err
	}
	if _, err := c.render(ctx, s.BundleSubstitutes()); err != nil {
		return err
	}
	if err := checkManifests(ctx, s, c); err != nil {
		return err
	}
	if s.Bundle != nil {
		if err := checkBundle(ctx, s, c); err != nil {
			return err
		}
	}
	if err := checkMirror(ctx, s); err != nil {
		return err
	}
	refs, err := nodeImages(s)
	if err != nil {
		return err
	}
	if err := session.CheckNodeImages(refs); err != nil {
		return err
	}
	if err := session.Usable(s.Info); err != nil {
		return err
	}
	if s.Unloadable != nil {
		return s.Unloadable
	}
	if err := checkAddresses(ctx, s); err != nil {
		return err
	}
	return checkGatewayAPI(ctx, s)
}

// What steps need of the cluster while it is still being created: nodes that take images, an API server that takes
// objects.
const (
	nodesRun   = "cluster/" + cluster.MilestoneNodes
	apiAnswers = "cluster/" + cluster.MilestoneAPI
	// podsStart: the nodes have the images of the pods that sm:install itself starts.
	podsStart = "images/" + milestoneInstall
)

// installPlan is sm:install. Needs name only what a step cannot do without, so that images are loaded and objects
// applied before all nodes have joined the cluster, and node tuning, the CRDs, MetalLB and Istio's base run side by
// side.
func installPlan(s *session.Session, c *charts) engine.Plan {
	return engine.Plan{Name: "install", Title: "Ambient mesh on " + s.Traits.Name, LookFirst: true, Steps: wanted(
		nodeImageStep(s, "node-image"),
		clusterStep(s, "cluster", "node-image"),
		tuneStep(s, "node-tuning", nodesRun),
		imagesStep(s, c, "images", nodesRun),
		recordStep(s, session.RecordPart, apiAnswers),
		gatewayAPIStep(s, "gateway-api", apiAnswers),
		metalLBStep(s, apiAnswers, podsStart),
		metalLBProcessStep(s),
		addressPoolStep(s),
		s.SetStep("istio-base", "Istio's CRDs", needs(apiAnswers), c.of(s, upstream.Base)),
		manifestsStep(s, earlyManifestsPart, "Namespaces and Secrets", needs("istio-base")),
		s.SetStep("istiod", "istiod, the control plane",
			needs("istio-base", "gateway-api", podsStart, "record", earlyManifestsPart), c.of(s, upstream.Istiod)),
		s.ProcessStep("istiod-process", "istiod, a process on this machine", cluster.ProcessIstiod, "istiod"),
		s.SetStep("istio-cni", "istio-cni on every node",
			needs("istio-base", podsStart, "node-tuning", "record", earlyManifestsPart), c.of(s, upstream.CNI)),
		s.SetStep("ztunnel", "ztunnel on every node", needs("istiod", "istiod-process", "istio-cni"),
			c.of(s, upstream.Ztunnel)),
		addonStep(s, "prometheus", "istio-base", podsStart, earlyManifestsPart),
		addonStep(s, "grafana", "istio-base", podsStart, earlyManifestsPart),
		addonStep(s, "jaeger", "istio-base", podsStart, earlyManifestsPart),
		addonStep(s, "kiali", "istio-base", podsStart, earlyManifestsPart),
		tracingStep(s, "tracing", "istiod", "istiod-process"),
		namespaceStep(s, "namespace", "ztunnel"),
		manifestsStep(s, manifestsPart, "Manifests", needs("namespace", "images", earlyManifestsPart)),
	)}
}

func needs(ids ...string) []string { return ids }

// wanted leaves out the steps that the settings do not ask for, whose ID is empty, and no other step then needs them.
func wanted(steps ...engine.Step) []engine.Step {
	steps = slices.DeleteFunc(steps, func(s engine.Step) bool { return s.ID == "" })
	present := map[string]bool{}
	for _, step := range steps {
		present[step.ID] = true
	}
	for i := range steps {
		steps[i].Needs = slices.DeleteFunc(slices.Clone(steps[i].Needs),
			func(need string) bool { return !present[engine.NeededStep(need)] })
	}
	return steps
}

const (
	removed      = ": removed, as it is no longer asked for"
	notRequested = ": none, as it is not asked for"
)

// optional is a step for a part that the settings may leave out. A part that they no longer ask for, and that an
// earlier run has installed, stays in the plan with an empty set, which removes it.
func optional(s *session.Session, id, title string, asked bool, needs []string, render session.Render) engine.Step {
	switch {
	case installs(s, id, asked):
		return s.SetStep(id, title, needs, render)
	case removes(s, id, asked):
		return s.SetStep(id, title+whyRemoved(s), needs, func(context.Context) (objects, error) { return nil, nil })
	default:
		return engine.Step{}
	}
}

// whyRemoved ends the title of a step that removes what the settings do not ask for.
func whyRemoved(s *session.Session) string {
	if s.Found.Unknown { // most likely it was never installed
		return notRequested
	}
	return removed
}

// installs tells whether the plan holds a part: as the settings ask or, in a plan to be undone, as the cluster has it.
func installs(s *session.Session, part string, asked bool) bool {
	if s.Config.Removing {
		return s.Found.MayHave(part)
	}
	return asked
}

// removes tells whether the plan removes a part.
func removes(s *session.Session, part string, asked bool) bool {
	return !s.Config.Removing && !asked && s.Found.MayHave(part)
}

// clusterStep creates the cluster. It has no deadline of its own where programs may have to be built first.
func clusterStep(s *session.Session, id string, needs ...string) engine.Step {
	timeout := s.Settings.StepTimeout()
	if s.Traits.BuildsPrograms {
		timeout = 0
	}
	step := cluster.Step(s.Provider(), id, timeout)
	step.Needs = needs
	return mirrored(s, step)
}

// tuneStep raises the inotify limits of every node, where all nodes are containers of this host. The limits are the
// host's: one kernel serves all nodes.
func tuneStep(s *session.Session, id string, needs ...string) engine.Step {
	if !s.Traits.TunesNodes {
		return engine.Step{}
	}
	nodes := func(ctx context.Context) ([]node.Node, error) {
		found, err := s.Provider().Nodes(ctx)
		if err != nil || slices.ContainsFunc(found, func(n node.Node) bool { return n.ContainerID == "" }) {
			return nil, err
		}
		return found, nil
	}
	step := node.Step(id, "inotify limits of every node", needs, s.Docker(), nodes, containers(s), node.Inotify())
	step.Timeout = s.Settings.ShortStepTimeout()
	return step
}

// containers lists the nodes' containers in a shell: by their names or, of a cluster that may still have to be created,
// with kind's command.
func containers(s *session.Session) string {
	if s.Traits.Owned {
		return "$(kind get nodes --name " + s.Settings.Cluster + ")"
	}
	var found []string
	for _, n := range s.Info.Nodes {
		if n.ContainerID == "" {
			return "" // such nodes are not changed
		}
		found = append(found, n.Name)
	}
	return strings.Join(found, " ")
}

// recordStep writes the record of the installation.
func recordStep(s *session.Session, id string, needs ...string) engine.Step {
	step := s.SetStep(id, "Record of the installation", needs, func(ctx context.Context) (objects, error) {
		substitutes, err := s.Substitutes(ctx)
		if err != nil {
			return nil, err
		}
		metalLB := "off"
		if s.Config.MetalLB {
			metalLB = "on"
		}
		record, err := session.Record{
			Lab: s.Settings.Cluster, Namespace: s.Config.Namespace, MetalLB: metalLB, Addons: s.Config.Addons,
			Substitutes: substitutes,
		}.Object()
		return objects{record}, err
	})
	if s.Config.Removing {
		step.Undo = nil // sm:delete removes the record last, so that it can go on after an interruption
	}
	return step
}

func addonStep(s *session.Session, name string, needs ...string) engine.Step {
	return optional(s, name, name+", a telemetry add-on", s.Config.HasAddon(name), needs,
		func(ctx context.Context) (objects, error) {
			list, err := s.Upstream().Addon(ctx, name, s.Config.Addons...)
			upstream.AskSoon(list)
			return list, err
		})
}

func tracingStep(s *session.Session, id string, needs ...string) engine.Step {
	return optional(s, id, "Traces to Jaeger", s.Config.HasAddon(upstream.Jaeger), needs,
		func(context.Context) (objects, error) {
			return specs.Objects("istio/telemetry.yaml", nil)
		})
}

// The label by which a namespace joins the mesh.
const (
	dataplaneMode = "istio.io/dataplane-mode"
	ambientMode   = "ambient"
)

// namespaceStep takes the applications' namespace into the mesh. The namespace itself may be older than the lab, so
// only the label is the lab's.
func namespaceStep(s *session.Session, id string, needs ...string) engine.Step {
	namespace := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Namespace",
		"metadata": map[string]any{"name": s.Config.Namespace, "labels": map[string]any{dataplaneMode: ambientMode}},
	}}
	return s.OverlayStep(id, "Namespace "+s.Config.Namespace+" in the mesh", needs,
		apply.Overlay{Name: id, Object: namespace, Create: true})
}

// tellLeft prints what a run left in the cluster, and why.
func tellLeft(s *session.Session, result engine.Result) {
	for _, change := range result.Changes() {
		if why, left := strings.CutPrefix(change.Detail, apply.LeftInPlace); left {
			s.Tell("%s stays: %s", change.Object, why)
		}
	}
}
