package cluster

import (
	"context"
	"strings"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"ambientlab/internal/problem"
)

// Vet refuses a cluster of the wrong version, one in which this user may not do what the lab needs, and one in which
// something keeps the lab's mesh from working.
func (e *Existing) Vet(ctx context.Context, info Info) error {
	if err := CheckVersion("the cluster of context "+info.Context, info.Version); err != nil {
		return err
	}
	kube, err := e.client(ctx)
	if err != nil {
		return err
	}
	if err := mayInstall(ctx, kube, info); err != nil {
		return err
	}
	return suitable(ctx, kube, info)
}

// needs lists one right for each sort of thing the lab installs.
func needs() []authorizationv1.ResourceAttributes {
	return []authorizationv1.ResourceAttributes{
		{Verb: "create", Resource: "namespaces"},
		{Verb: "patch", Group: "apiextensions.k8s.io", Resource: "customresourcedefinitions"},
		{Verb: "patch", Group: "rbac.authorization.k8s.io", Resource: "clusterroles"},
		{Verb: "escalate", Group: "rbac.authorization.k8s.io", Resource: "clusterroles"},
		{Verb: "patch", Group: "admissionregistration.k8s.io", Resource: "validatingwebhookconfigurations"},
		{Verb: "patch", Group: "apps", Resource: "daemonsets", Namespace: "istio-system"},
		{Verb: "delete", Group: "apps", Resource: "deployments", Namespace: "istio-system"},
	}
}

func mayInstall(ctx context.Context, kube kubernetes.Interface, info Info) error {
	var missing []string
	for _, attributes := range needs() {
		review, err := kube.AuthorizationV1().SelfSubjectAccessReviews().
			Create(ctx, &authorizationv1.SelfSubjectAccessReview{
				Spec: authorizationv1.SelfSubjectAccessReviewSpec{ResourceAttributes: &attributes},
			}, metav1.CreateOptions{})
		if err != nil {
			return problem.New(problem.ClusterUnreachable, err, "asking %s what this user may do", info.Server)
		}
		if !review.Status.Allowed {
			missing = append(missing, strings.TrimSpace(attributes.Verb+" "+attributes.Resource+" "+attributes.Group))
		}
	}
	if len(missing) > 0 {
		return problem.New(
			problem.ApplyForbidden, nil, "this user may not, in the cluster of context %s: %s", info.Context,
			strings.Join(missing, ", "),
		)
	}
	return nil
}
