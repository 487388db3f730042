package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

// recordName is the ConfigMap in kube-system that says what this lab is made of. Later targets read it instead of
// asking the user for the bundle again.
const recordName = "ambientlab-record"

const (
	recordNamespace   = "kube-system"
	recordLab         = "lab"
	recordPart        = "record"
	recordSubstitutes = "substitutes"
	recordAddons      = "addons"
	recordSpace       = "namespace"
	recordMetalLB     = "metallb"
)

// substitutes maps an image's reference to what the image really is.
type substitutes map[string]string

func (s substitutes) key() string { return fmt.Sprint(slices.Sorted(maps.Keys(s))) }

// proxy is what stands in for Istio's Envoy, or "".
func (s substitutes) proxy() string { return s.of("istio/proxyv2:") }

// ztunnel is what stands in for ztunnel, or "".
func (s substitutes) ztunnel() string { return s.of("istio/ztunnel:") }

func (s substitutes) of(part string) string {
	for ref, what := range s {
		if strings.Contains(ref, part) {
			return what
		}
	}
	return ""
}

// substitutes tells which images are not what their references say: from the bundle where one is set, and otherwise
// from what the cluster's installation recorded.
func (l *Lab) substitutes(ctx context.Context) (substitutes, error) {
	if l.bundle != nil {
		return l.bundleSubstitutes(), nil
	}
	if l.embedded != nil {
		return l.embedded.Substitutes()
	}
	record, err := l.record(ctx)
	if err != nil || record == nil {
		return substitutes{}, err
	}
	found := substitutes{}
	if err := json.Unmarshal([]byte(record[recordSubstitutes]), &found); err != nil {
		return nil, problem.New(problem.Internal, err, "ConfigMap %s/%s does not hold what sm:install wrote", recordNamespace, recordName)
	}
	return found, nil
}

// record reads what sm:install wrote; nil means that it has not got that far.
func (l *Lab) record(ctx context.Context) (map[string]string, error) {
	record, err := l.recordObject(ctx)
	if err != nil || record == nil {
		return nil, err
	}
	return record.Data, nil
}

func (l *Lab) recordObject(ctx context.Context) (*corev1.ConfigMap, error) {
	client, err := l.connect(ctx)
	if problem.Is(err, problem.ClusterNone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	record, err := client.Kube().CoreV1().ConfigMaps(recordNamespace).Get(ctx, recordName, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("reading ConfigMap %s/%s: %w", recordNamespace, recordName, err)
	}
	return record, nil
}

// bundleSubstitutes lists the substitutes of the bundle in use; without a bundle there are none.
func (l *Lab) bundleSubstitutes() substitutes {
	found := substitutes{}
	if l.bundle == nil {
		return found
	}
	for _, image := range l.bundle.Images() {
		if image.Substitute != "" {
			found[image.Ref] = image.Substitute
		}
	}
	return found
}

func (l *Lab) recordStep(id string, needs ...string) engine.Step {
	step := l.setStep(id, "Record of the installation", needs, func(ctx context.Context) (objects, error) {
		subs, err := l.substitutes(ctx)
		if err != nil {
			return nil, err
		}
		raw, err := json.Marshal(subs)
		if err != nil {
			return nil, fmt.Errorf("writing the list of substitutes: %w", err)
		}
		return objects{{Object: map[string]any{
			"apiVersion": "v1", "kind": "ConfigMap",
			"metadata": map[string]any{"name": recordName, "namespace": recordNamespace},
			"data": map[string]any{
				recordLab:         l.Settings.Cluster,
				recordSpace:       l.Settings.Namespace,
				recordMetalLB:     onOff(l.Settings.UseMetalLB()),
				recordAddons:      strings.Join(l.Settings.Addons, ","),
				recordSubstitutes: string(raw),
			},
		}}}, nil
	})
	if l.removing {
		step.Undo = nil // sm:delete reads it to its very end, and so can begin again after an interruption
	}
	return step
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// tellSubstitutes says which images are not what their references say: nobody should take this project's node proxy
// for ztunnel.
func (l *Lab) tellSubstitutes(ctx context.Context) {
	subs, err := l.substitutes(ctx)
	if err != nil {
		l.tell("which images are substitutes cannot be told: %v", err)
		return
	}
	for _, ref := range slices.Sorted(maps.Keys(subs)) {
		l.tell("substitute: %s is %s", ref, subs[ref])
	}
}
