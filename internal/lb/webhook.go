package lb

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"ambientlab/internal/engine"
)

// What MetalLB's manifest calls the Secret with its webhook's certificate, and how it labels its controller's pod.
const (
	webhookSecret    = "metallb-webhook-cert"
	controllerLabels = "app=metallb,component=controller"
)

// mountedAnnotation is what MountCertificate sets on a pod: which version of the Secret the kubelet was to mount.
const mountedAnnotation = "lab.opssec.in/mounted"

// lookAgain is the time between two looks. The webhook of a controller that has its certificate answers before the
// first.
const lookAgain = 500 * time.Millisecond

// MountCertificate makes MetalLB's webhook answer soon: until ctx ends, it looks whether there is a certificate that
// the controller's pod may not have yet. The controller writes the webhook's certificate into a Secret, and serves the
// webhook when the kubelet has brought it into the pod. The kubelet compares a pod with its Secrets when it works on
// the pod: when the result of a probe or the pod's object changes, and otherwise after 60 to 90 seconds
// (k8s.io/kubernetes, pkg/kubelet/pod_workers.go). A controller that is ready before its Secret is written would wait
// for that. So the pod gets an annotation without meaning. What cannot be done is told once: the webhook then answers
// later.
func MountCertificate(ctx context.Context, kube kubernetes.Interface) {
	told := false
	for {
		select {
		case <-time.After(lookAgain):
		case <-ctx.Done():
			return
		}
		if err := mountCertificate(ctx, kube); err != nil && ctx.Err() == nil && !told {
			told = true
			engine.Tell(ctx, "MetalLB's webhook may need up to two minutes: %v", err)
		}
	}
}

// mountCertificate annotates the pods of the controller, once for each version of the Secret.
func mountCertificate(ctx context.Context, kube kubernetes.Interface) error {
	secret, err := kube.CoreV1().Secrets(Namespace).Get(ctx, webhookSecret, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil // this MetalLB has no webhook
	}
	if err != nil {
		return fmt.Errorf("reading Secret %s/%s: %w", Namespace, webhookSecret, err)
	}
	if len(secret.Data[corev1.TLSCertKey]) == 0 {
		return nil // the controller has not written it yet
	}
	pods, err := kube.CoreV1().Pods(Namespace).List(ctx, metav1.ListOptions{LabelSelector: controllerLabels})
	if err != nil {
		return fmt.Errorf("listing the pods of MetalLB's controller: %w", err)
	}
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"annotations": map[string]string{mountedAnnotation: secret.ResourceVersion},
	}})
	if err != nil {
		return err
	}
	for _, pod := range pods.Items {
		if pod.Annotations[mountedAnnotation] == secret.ResourceVersion {
			continue
		}
		_, err := kube.CoreV1().Pods(Namespace).
			Patch(ctx, pod.Name, types.MergePatchType, patch, metav1.PatchOptions{FieldManager: "ambientlab-mounter"})
		if err != nil {
			return fmt.Errorf("annotating pod %s/%s: %w", Namespace, pod.Name, err)
		}
		engine.Changed(ctx, engine.Change{
			Object: "Pod " + Namespace + "/" + pod.Name, Action: engine.Update,
			Detail: "annotated, so that its kubelet mounts the certificate of MetalLB's webhook now",
		})
	}
	return nil
}
