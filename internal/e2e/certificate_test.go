//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"ambientlab/internal/apply"
	"ambientlab/internal/lb"
)

// kubeletPeriod is the shortest time after which a kubelet works on a pod that has not changed (k8s.io/kubernetes,
// pkg/kubelet/kubelet.go and pod_workers.go).
const kubeletPeriod = time.Minute

// testLateCertificate: MetalLB's controller becomes ready before it has written the certificate of its webhook, and
// sm:install still writes an object that the webhook checks. By itself the webhook would answer after one to two
// minutes. How long it takes is told, not judged.
func (l *lab) testLateCertificate(t *testing.T) {
	const secret, policy = "metallb-webhook-cert", "late-certificate"
	kube, objects := l.kube(t)
	ctx := t.Context()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	secrets, pods := kube.CoreV1().Secrets(lb.Namespace), kube.CoreV1().Pods(lb.Namespace)
	controller := metav1.ListOptions{LabelSelector: "app=metallb,component=controller"}
	before, err := pods.List(ctx, controller)
	check(err)

	// The pool differs from what the lab wants, so that sm:install has to write it.
	pool := schema.GroupVersionResource{Group: "metallb.io", Version: "v1beta1", Resource: "ipaddresspools"}
	_, err = objects.Resource(pool).Namespace(lb.Namespace).Patch(ctx, lb.PoolName, types.MergePatchType,
		[]byte(`{"spec":{"autoAssign":false}}`), metav1.PatchOptions{})
	check(err)

	policies, bindings := kube.AdmissionregistrationV1().ValidatingAdmissionPolicies(),
		kube.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	_, err = policies.Create(ctx, &admissionv1.ValidatingAdmissionPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: policy},
		Spec: admissionv1.ValidatingAdmissionPolicySpec{
			MatchConstraints: &admissionv1.MatchResources{
				ResourceRules: []admissionv1.NamedRuleWithOperations{{
					RuleWithOperations: admissionv1.RuleWithOperations{
						Operations: []admissionv1.OperationType{admissionv1.Update},
						Rule: admissionv1.Rule{
							APIGroups: []string{""}, APIVersions: []string{"v1"}, Resources: []string{"secrets"},
						},
					},
				}},
			},
			// The controller may not write a certificate; the test may empty the Secret.
			Validations: []admissionv1.Validation{{Expression: fmt.Sprintf(
				"object.metadata.name != '%s' || !has(object.data) || !('tls.crt' in object.data)", secret)}},
		},
	}, metav1.CreateOptions{})
	check(err)
	_, err = bindings.Create(ctx, &admissionv1.ValidatingAdmissionPolicyBinding{
		ObjectMeta: metav1.ObjectMeta{Name: policy},
		Spec: admissionv1.ValidatingAdmissionPolicyBindingSpec{
			PolicyName: policy, ValidationActions: []admissionv1.ValidationAction{admissionv1.Deny},
		},
	}, metav1.CreateOptions{})
	check(err)
	forbidden := func() bool {
		_, err := secrets.Patch(ctx, secret, types.MergePatchType, []byte(`{"data":{"tls.crt":"eA=="}}`),
			metav1.PatchOptions{DryRun: []string{metav1.DryRunAll}})
		return err != nil && strings.Contains(err.Error(), policy)
	}
	eventually(t, "the certificate cannot be written", forbidden)

	_, err = secrets.Patch(ctx, secret, types.MergePatchType, []byte(`{"data":null}`), metav1.PatchOptions{})
	check(err)
	for _, pod := range before.Items {
		check(pods.Delete(ctx, pod.Name, metav1.DeleteOptions{}))
	}
	eventually(t, "another pod of the controller is ready", func() bool {
		now, err := pods.List(ctx, controller)
		return err == nil && len(now.Items) == 1 && now.Items[0].UID != before.Items[0].UID &&
			apply.PodState(&now.Items[0]).Ready
	})
	// The kubelet works on the pod until a moment after it is ready. The controller tries to write for 5 to 10 seconds.
	time.Sleep(2 * time.Second)
	check(bindings.Delete(ctx, policy, metav1.DeleteOptions{}))
	check(policies.Delete(ctx, policy, metav1.DeleteOptions{}))

	install := l.mage(t, "sm:install")
	t.Logf("sm:install took %s", install.took)
	if !strings.Contains(install.stderr, "update IPAddressPool "+lb.Namespace+"/"+lb.PoolName) {
		t.Error("sm:install did not write the pool")
	}
	now, err := pods.List(ctx, controller)
	check(err)
	for _, pod := range now.Items {
		switch {
		case pod.Annotations["lab.opssec.in/mounted"] != "":
			t.Log("the kubelet was asked to mount the certificate")
		case pod.Status.ContainerStatuses[0].RestartCount > 0:
			t.Log("the controller gave up and was started again, so that its kubelet looked by itself")
		case install.took < kubeletPeriod:
			t.Log("the kubelet looked by itself, in time")
		default:
			t.Errorf("the kubelet was not asked to mount the certificate into pod %s", pod.Name)
		}
	}
}

// eventually waits until something holds, for at most two minutes.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	if err := wait.PollUntilContextTimeout(t.Context(), 200*time.Millisecond, 2*time.Minute, true,
		func(context.Context) (bool, error) { return holds(), nil }); err != nil {
		t.Fatalf("waiting until %s: %v", what, err)
	}
}
