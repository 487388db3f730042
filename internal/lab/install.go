package lab

import (
	"context"
	"slices"

	"ambientlab/internal/engine"
)

// Install creates or reuses the cluster and brings up everything up to the first lesson.
func (l *Lab) Install(ctx context.Context) error {
	if err := l.prepare(ctx); err != nil {
		return err
	}
	if err := l.lookForParts(ctx); err != nil {
		return err
	}
	result, err := l.apply(ctx, l.installPlan())
	if err != nil {
		return err
	}
	l.tellSubstitutes(ctx)
	l.tellWebhooks(ctx)
	l.tellChanges(result)
	l.thenType("mage sm:apps")
	return nil
}

// installPlan is sm:install. Needs name only what a step cannot do without, so that node tuning, image loading, the
// CRDs, MetalLB and Istio's base run side by side.
func (l *Lab) installPlan() engine.Plan {
	return engine.Plan{Name: "install", Title: "Ambient mesh on " + l.Settings.Provider, Steps: wanted(
		l.nodeImageStep("node-image"),
		l.clusterStep("cluster", "node-image"),
		l.tuneStep("node-tuning", "cluster"),
		l.imagesStep("images", "cluster"),
		l.recordStep(recordPart, "cluster"),
		l.gatewayAPIStep("gateway-api", "cluster"),
		l.metalLBStep("cluster", "images"),
		l.metalLBProcessStep(),
		l.addressPoolStep(),
		l.setStep("istio-base", "Istio's CRDs", needs("cluster"), l.istio("base")),
		l.earlyManifestsStep("istio-base"),
		l.setStep("istiod", "istiod, the control plane", needs("istio-base", "gateway-api", "images", "record", earlyManifestsPart), l.istio("istiod")),
		l.processStep("istiod-process", "istiod, a process on this machine", processIstiod, "istiod"),
		l.setStep("istio-cni", "istio-cni on every node", needs("istio-base", "images", "node-tuning", "record", earlyManifestsPart), l.istio("cni")),
		l.setStep("ztunnel", "ztunnel on every node", needs("istiod", "istiod-process", "istio-cni"), l.istio("ztunnel")),
		l.addonStep("prometheus", "istio-base", "images", earlyManifestsPart),
		l.addonStep("grafana", "istio-base", "images", earlyManifestsPart),
		l.addonStep("jaeger", "istio-base", "images", earlyManifestsPart),
		l.addonStep("kiali", "istio-base", "images", earlyManifestsPart),
		l.tracingStep("telemetry", "istiod", "istiod-process"),
		l.namespaceStep("namespace", "ztunnel"),
		l.lateManifestsStep("namespace", earlyManifestsPart),
	)}
}

func needs(ids ...string) []string { return ids }

// wanted leaves out the steps that the settings do not ask for (their ID is empty), and nobody waits for those.
func wanted(steps ...engine.Step) []engine.Step {
	steps = slices.DeleteFunc(steps, func(s engine.Step) bool { return s.ID == "" })
	present := map[string]bool{}
	for _, step := range steps {
		present[step.ID] = true
	}
	for i := range steps {
		steps[i].Needs = slices.DeleteFunc(slices.Clone(steps[i].Needs), func(id string) bool { return !present[id] })
	}
	return steps
}
