package apply

import (
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"ambientlab/internal/problem"
)

func TestSilentWebhookIsWaitedFor(t *testing.T) {
	c := cluster(t, "webhook")
	ns := namespace(t, c)
	hooks := Set{Name: "hooks", Objects: objects(t, `
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: silent}
webhooks:
- name: silent.lab.test
  clientConfig: {service: {name: nobody, namespace: `+ns+`, path: /}, caBundle: ZHVtbXk=}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [configmaps]}]
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: `+ns+`}}
  sideEffects: None
  admissionReviewVersions: [v1]
`)}
	mustApply(t, c, hooks)
	if got := mustDiff(t, c, hooks); len(got) > 0 {
		t.Errorf("hooks: %v", short(got))
	}
	// istiod and MetalLB write their authority into the configuration; that is no drift.
	patch := []byte(`[{"op":"add","path":"/webhooks/0/clientConfig/caBundle","value":"` + authority + `"}]`)
	if _, err := c.Kube().AdmissionregistrationV1().ValidatingWebhookConfigurations().
		Patch(t.Context(), "silent", types.JSONPatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := mustDiff(t, c, hooks); len(got) > 0 {
		t.Errorf("with an authority: %v", short(got))
	}
	set := Set{Name: "part", Namespace: ns, Objects: objects(t, configMap("a", "k", "1"))}
	awaitRefusal(t, c, ns)
	if got := short(mustDiff(t, c, set)); len(got) != 1 || !strings.Contains(got[0], "a webhook does not answer yet") {
		t.Errorf("diff: %v", got)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := c.Apply(ctx, set)
	if !problem.Is(err, problem.WebhookSilent) || !strings.Contains(err.Error(), "silent.lab.test") {
		t.Errorf("apply: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := c.Apply(t.Context(), set)
		done <- err
	}()
	if _, err := c.Delete(t.Context(), hooks); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// awaitRefusal returns once the API server has learned of the webhook.
func awaitRefusal(t *testing.T, c *Client, ns string) {
	t.Helper()
	probe := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "probe-", Namespace: ns}}
	for {
		err := c.Client().Create(t.Context(), probe.DeepCopy(), client.DryRunAll)
		if apierrors.IsInternalError(err) {
			return
		}
		if sleep(t.Context(), 50*time.Millisecond) != nil {
			t.Fatal("the webhook is never asked")
		}
	}
}

//revive:disable:line-length-limit a certificate

// authority is some certificate authority, as webhooks' servers write it.
const authority = "LS0tLS1CRUdJTiBDRVJUSUZJQ0FURS0tLS0tCk1JSUJkVENDQVJ1Z0F3SUJBZ0lVS1ZLakZ0bElMNlpZQVBDTUVOUC9IaEJZRWkwd0NnWUlLb1pJemowRUF3SXcKRHpFTk1Bc0dBMVVFQXd3RWRHVnpkREFnRncweU5qRXhNak13TnpFNU1UWmFHQTh5TVRJMk1UQXpNREEzTVRreApObG93RHpFTk1Bc0dBMVVFQXd3RWRHVnpkREJaTUJNR0J5cUdTTTQ5QWdFR0NDcUdTTTQ5QXdFSEEwSUFCRFo5CjF3Sm1mRUVTb3lLcEQxSHBJNXJ1SzRJK0xaMFhoVy84cTFpLzMraG1ELzhjSnczRWRiNGFzUFc4S3ZaOHNCRWgKSEdwdkloNzkyVGkrOGdzQkVMU2pVekJSTUIwR0ExVWREZ1FXQkJTZWpRdTFyeEJQeEtvRURTVHIxKzh4czJYWApuVEFmQmdOVkhTTUVHREFXZ0JTZWpRdTFyeEJQeEtvRURTVHIxKzh4czJYWG5UQVBCZ05WSFJNQkFmOEVCVEFECkFRSC9NQW9HQ0NxR1NNNDlCQU1DQTBnQU1FVUNJUUNxL3EvVW5abWdKVXA4a0MxaUNsVTdpTlI1RkhVWVNQQnIKWGx0M3hhQmtvd0lnTFNHeDFrODdxdkUyVGMvRnY5bnJyOWhodVdBbGY4d1p6a1F6ZU9YY1plQT0KLS0tLS1FTkQgQ0VSVElGSUNBVEUtLS0tLQo="

//revive:enable:line-length-limit
