package embedded

import (
	"encoding/json"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// Simulated is the annotation of workloads whose pods are only reported as running.
const Simulated = "lab.opssec.in/simulated"

// standsFor is the annotation of a pod that a process is.
const standsFor = "lab.opssec.in/stands-for"

// Adapt makes of a set of objects what belongs into this control plane:
//
//   - A Deployment that runs as a process becomes the ConfigMap that says how; its PodDisruptionBudget and its
//     HorizontalPodAutoscaler, which would have nothing to work on, are left out.
//   - istiod's webhooks are called at its address on loopback: the API server reaches no Service.
//   - Webhooks of programs that do not run are left out: MetalLB's controller can serve its own on every address of
//     the machine only, and simulated pods serve nothing.
//   - Every other workload is marked as simulated.
//
// An object that cannot be read stays as it is: the API server says what is wrong with it.
func (e *Embedded) Adapt(objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	hook := "https://127.0.0.1" // for a plan ahead of the control plane, which chooses the port when it is made
	if s, err := e.load(); err == nil {
		hook = s.address("https", portIstiodHook)
	}
	var adapted []*unstructured.Unstructured
	for _, object := range objects {
		kept, err := e.adapt(object, hook)
		if err != nil {
			kept = []*unstructured.Unstructured{object}
		}
		adapted = append(adapted, kept...)
	}
	return adapted
}

// adapt gives the replacement of one object.
func (e *Embedded) adapt(object *unstructured.Unstructured, hook string) ([]*unstructured.Unstructured, error) {
	switch object.GetKind() {
	case "Deployment", "PodDisruptionBudget", "HorizontalPodAutoscaler":
		for _, w := range workloads() {
			if object.GetNamespace() != w.namespace || object.GetName() != w.deployment {
				continue
			}
			if object.GetKind() != "Deployment" {
				return nil, nil
			}
			return stand(object, w)
		}
	case "ValidatingWebhookConfiguration", "MutatingWebhookConfiguration":
		return redirect(object, hook)
	}
	if slices.Contains([]string{"Deployment", "DaemonSet", "StatefulSet"}, object.GetKind()) && !e.runsPodsOf(object) {
		marked := object.DeepCopy()
		annotations := marked.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[Simulated] = "the pod runner reports its pods as running; they run nothing"
		marked.SetAnnotations(annotations)
		object = marked
	}
	return []*unstructured.Unstructured{object}, nil
}

// stand makes the objects in the cluster for a Deployment that runs as a process: its settings and, for MetalLB, which
// looks for its own pod, a pod.
func stand(object *unstructured.Unstructured, w workload) ([]*unstructured.Unstructured, error) {
	deployment := &appsv1.Deployment{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, deployment); err != nil {
		return nil, err
	}
	raw, err := json.MarshalIndent(settingsOf(deployment, w), "", "  ")
	if err != nil {
		return nil, err
	}
	stands := []*unstructured.Unstructured{{Object: map[string]any{
		"apiVersion": "v1", "kind": "ConfigMap",
		"metadata": map[string]any{"name": processName(w.component), "namespace": w.namespace},
		"data":     map[string]any{processKey: string(raw)},
	}}}
	if w.component != metallb {
		return stands, nil
	}
	pod := deployment.Spec.Template.Spec
	return append(stands, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": map[string]any{
			"name": w.pod(), "namespace": w.namespace,
			"annotations": map[string]any{standsFor: "process " + w.component + " on the machine of the lab"},
		},
		"spec": map[string]any{
			"serviceAccountName": pod.ServiceAccountName,
			"containers": []any{
				map[string]any{"name": pod.Containers[0].Name, "image": pod.Containers[0].Image},
			},
		},
	}}), nil
}

// redirect points the webhooks that istiod serves at its address, and leaves out what nothing serves.
func redirect(object *unstructured.Unstructured, hook string) ([]*unstructured.Unstructured, error) {
	changed := object.DeepCopy()
	hooks, _, err := unstructured.NestedSlice(changed.Object, "webhooks")
	if err != nil {
		return nil, err
	}
	var kept []any
	for _, item := range hooks {
		webhook, _ := item.(map[string]any)
		name, byService, _ := unstructured.NestedString(webhook, "clientConfig", "service", "name")
		if !byService {
			kept = append(kept, webhook)
			continue
		}
		if name != istiod {
			continue
		}
		path, _, _ := unstructured.NestedString(webhook, "clientConfig", "service", "path")
		client, _, _ := unstructured.NestedMap(webhook, "clientConfig")
		delete(client, "service")
		client["url"] = hook + path
		webhook["clientConfig"] = client
		kept = append(kept, webhook)
	}
	if len(kept) == 0 {
		return nil, nil
	}
	return []*unstructured.Unstructured{changed}, unstructured.SetNestedSlice(changed.Object, kept, "webhooks")
}
