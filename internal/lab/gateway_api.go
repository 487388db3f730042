package lab

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ambientlab/internal/apply"
	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
)

const (
	gatewayAPIGroup   = "gateway.networking.k8s.io"
	gatewayAPIVersion = "v1" // of all three kinds that the lab and istiod's waypoints use
	bundleVersion     = "gateway.networking.k8s.io/bundle-version"
)

// gatewayAPINeeds are the CRDs that every lab needs.
func gatewayAPINeeds() []string {
	return []string{"gatewayclasses." + gatewayAPIGroup, "gateways." + gatewayAPIGroup, "httproutes." + gatewayAPIGroup}
}

// gatewayAPIStep applies the Gateway API. On a cluster that the lab did not create, CRDs that someone else installed
// stay as they are.
func gatewayAPIStep(s *session.Session, id string, needs ...string) engine.Step {
	step := s.SetStep(id, "Gateway API CRDs", needs,
		func(ctx context.Context) (objects, error) { return gatewayAPI(ctx, s) })
	check := step.Check
	step.Check = func(ctx context.Context) (engine.Status, error) {
		status, err := check(ctx)
		if err != nil {
			return status, err
		}
		others, err := othersGatewayAPI(ctx, s)
		if err != nil || len(others) == 0 {
			return status, err
		}
		status.Message += fmt.Sprintf(
			"; %d CRDs of the Gateway API were not installed by the lab, which does not change them: %s", len(others),
			strings.Join(describeCRDs(others), ", "))
		return status, nil
	}
	return step
}

// gatewayAPI gives the lab's own CRDs. Where someone else installed the Gateway API, it gives only those that the lab
// needs and that are missing, and not the admission policy that guards all of them.
func gatewayAPI(ctx context.Context, s *session.Session) (objects, error) {
	rendered, err := s.Upstream().GatewayAPI(ctx)
	if err != nil {
		return nil, err
	}
	others, err := othersGatewayAPI(ctx, s)
	if err != nil || len(others) == 0 {
		return rendered, err
	}
	return slices.DeleteFunc(rendered, func(object *unstructured.Unstructured) bool {
		theirs := slices.ContainsFunc(others,
			func(crd apiextensionsv1.CustomResourceDefinition) bool { return crd.Name == object.GetName() })
		return theirs || object.GetKind() != "CustomResourceDefinition" ||
			!slices.Contains(gatewayAPINeeds(), object.GetName())
	}), nil
}

// gatewayAPITimeout bounds checkGatewayAPI.
const gatewayAPITimeout = 15 * time.Second

// checkGatewayAPI refuses a Gateway API of someone else that does not serve what the lab needs. Other troubles of the
// cluster are reported by its own step.
func checkGatewayAPI(ctx context.Context, s *session.Session) error {
	ctx, cancel := context.WithTimeout(ctx, gatewayAPITimeout)
	defer cancel()
	if _, err := othersGatewayAPI(ctx, s); problem.Is(err, problem.GatewayAPIVersion) {
		return err
	}
	return nil
}

// othersGatewayAPI lists the CRDs of the Gateway API that are in the cluster without a lab's labels. A cluster that the
// lab created has none.
func othersGatewayAPI(ctx context.Context, s *session.Session) ([]apiextensionsv1.CustomResourceDefinition, error) {
	if s.Traits.Owned {
		return nil, nil
	}
	api, err := s.Connect(ctx)
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
		if !strings.HasSuffix(item.Name, "."+gatewayAPIGroup) || item.Labels[apply.LabelName] != "" ||
			item.DeletionTimestamp != nil {
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

func readCRD(
	ctx context.Context, api *apply.Client, name string,
) (crd apiextensionsv1.CustomResourceDefinition, err error) {
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
			found = append(found,
				fmt.Sprintf("%s (%s) serves %s", crd.Name, versionOf(crd), strings.Join(servedBy(crd), ", ")))
		}
	}
	if len(found) == 0 {
		return nil
	}
	return problem.New(problem.GatewayAPIVersion, nil, "%s; the lab needs %s", strings.Join(found, "; "),
		gatewayAPIVersion)
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

func describeCRDs(crds []apiextensionsv1.CustomResourceDefinition) []string {
	named := make([]string, 0, len(crds))
	for _, crd := range crds {
		named = append(named, crd.Name+" ("+versionOf(crd)+")")
	}
	return named
}
