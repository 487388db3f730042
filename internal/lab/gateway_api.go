package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ambientlab/internal/apply"
	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

const (
	gatewayAPIGroup   = "gateway.networking.k8s.io"
	gatewayAPIVersion = "v1" // of all three kinds that the lab and istiod's waypoints use
	bundleVersion     = "gateway.networking.k8s.io/bundle-version"
)

// gatewayAPINeeds are the CRDs that no lab can do without.
func gatewayAPINeeds() []string {
	return []string{"gatewayclasses." + gatewayAPIGroup, "gateways." + gatewayAPIGroup, "httproutes." + gatewayAPIGroup}
}

// gatewayAPIStep brings the Gateway API. On a cluster that the lab found, what somebody else keeps of it stays as it is.
func (l *Lab) gatewayAPIStep(id string, needs ...string) engine.Step {
	step := l.setStep(id, "Gateway API CRDs", needs, l.gatewayAPI)
	check := step.Check
	step.Check = func(ctx context.Context) (engine.Status, error) {
		status, err := check(ctx)
		if err != nil {
			return status, err
		}
		others, err := l.othersGatewayAPI(ctx)
		if err != nil || len(others) == 0 {
			return status, err
		}
		status.Message += fmt.Sprintf("; %d CRDs of the Gateway API are somebody else's, and stay as they are: %s", len(others), strings.Join(words(others), ", "))
		return status, nil
	}
	return step
}

// gatewayAPI gives the lab's own CRDs or, where somebody else keeps the Gateway API in the cluster, only those that the
// lab cannot do without and that are missing. The admission policy that guards them is then not the lab's to set.
func (l *Lab) gatewayAPI(ctx context.Context) (objects, error) {
	rendered, err := l.upstream.GatewayAPI(ctx)
	if err != nil {
		return nil, err
	}
	others, err := l.othersGatewayAPI(ctx)
	if err != nil || len(others) == 0 {
		return rendered, err
	}
	return slices.DeleteFunc(rendered, func(object *unstructured.Unstructured) bool {
		theirs := slices.ContainsFunc(others, func(crd apiextensionsv1.CustomResourceDefinition) bool { return crd.Name == object.GetName() })
		return theirs || object.GetKind() != "CustomResourceDefinition" || !slices.Contains(gatewayAPINeeds(), object.GetName())
	}), nil
}

// checkGatewayAPI refuses a Gateway API of somebody else's that does not serve what the lab needs. Whatever else is
// wrong with the cluster its own step says.
func (l *Lab) checkGatewayAPI(ctx context.Context) error {
	if l.Settings.Provider != ProviderExisting {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookTime)
	defer cancel()
	if _, err := l.othersGatewayAPI(ctx); problem.Is(err, problem.GatewayAPIVersion) {
		return err
	}
	return nil
}

// othersGatewayAPI lists the CRDs of the Gateway API that are in the cluster and bear no lab's labels. On a cluster that
// the lab made there are none.
func (l *Lab) othersGatewayAPI(ctx context.Context) ([]apiextensionsv1.CustomResourceDefinition, error) {
	if l.Settings.Provider != ProviderExisting {
		return nil, nil
	}
	api, err := l.connect(ctx)
	if err != nil {
		return nil, err
	}
	metadata := &metav1.PartialObjectMetadataList{}
	metadata.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinitionList"))
	if err := api.Client().List(ctx, metadata); err != nil {
		return nil, fmt.Errorf("looking for the Gateway API: %w", err)
	}
	var others []apiextensionsv1.CustomResourceDefinition
	for _, item := range metadata.Items {
		if !strings.HasSuffix(item.Name, "."+gatewayAPIGroup) || item.Labels[apply.LabelName] != "" || item.DeletionTimestamp != nil {
			continue
		}
		crd, err := readCRD(ctx, api, item.Name)
		if err != nil {
			return nil, err
		}
		others = append(others, crd)
	}
	return others, tooOld(others)
}

func readCRD(ctx context.Context, api *apply.Client, name string) (crd apiextensionsv1.CustomResourceDefinition, err error) {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(apiextensionsv1.SchemeGroupVersion.WithKind("CustomResourceDefinition"))
	if err := api.Client().Get(ctx, client.ObjectKey{Name: name}, object); err != nil {
		return crd, fmt.Errorf("reading CRD %s: %w", name, err)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &crd); err != nil {
		return crd, fmt.Errorf("reading CRD %s: %w", name, err)
	}
	return crd, nil
}

// tooOld names the CRDs that the lab needs and that do not serve the version it uses.
func tooOld(crds []apiextensionsv1.CustomResourceDefinition) error {
	var found []string
	for _, crd := range crds {
		if slices.Contains(gatewayAPINeeds(), crd.Name) && !slices.Contains(servedBy(crd), gatewayAPIVersion) {
			found = append(found, fmt.Sprintf("%s (%s) serves %s", crd.Name, versionOf(crd), strings.Join(servedBy(crd), ", ")))
		}
	}
	if len(found) == 0 {
		return nil
	}
	return problem.New(problem.GatewayAPIVersion, nil, "%s; the lab needs %s", strings.Join(found, "; "), gatewayAPIVersion)
}

func servedBy(crd apiextensionsv1.CustomResourceDefinition) []string {
	var served []string
	for _, version := range crd.Spec.Versions {
		if version.Served {
			served = append(served, version.Name)
		}
	}
	return served
}

func versionOf(crd apiextensionsv1.CustomResourceDefinition) string {
	if version := crd.Annotations[bundleVersion]; version != "" {
		return "Gateway API " + version
	}
	return "of an unknown version of the Gateway API"
}

func words(crds []apiextensionsv1.CustomResourceDefinition) []string {
	named := make([]string, 0, len(crds))
	for _, crd := range crds {
		named = append(named, crd.Name+" ("+versionOf(crd)+")")
	}
	return named
}
