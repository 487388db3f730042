package lab

import (
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admission/v1"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/lesson/params"
	"ambientlab/internal/problem"
)

// TestEmbeddedTrouble hurts one lab in every way that labs are hurt, and wants each noticed and mended, or named.
func TestEmbeddedTrouble(t *testing.T) {
	b := newBench(t, "trouble")
	b.installWithRestart()
	b.do("apps", b.apps)
	b.overlooked()
	b.do("fault", b.fault)
	for _, trouble := range []struct {
		name string
		test func(*bench)
	}{
		{"a plan of a lab that drifted", (*bench).planned},
		{"drift", (*bench).drift},
		{"a process killed", (*bench).killed},
		{"another field manager", (*bench).conflict},
		{"a webhook that refuses", (*bench).webhook},
		{"CRDs deleted", (*bench).crdsDeleted},
		{"secrets", (*bench).secretsStayOut},
	} {
		t.Run(trouble.name, func(t *testing.T) {
			inner := *b
			inner.t = t
			trouble.test(&inner)
		})
	}
}

// installWithRestart kills the API server while objects are applied, and starts it again as another run of the target
// would. The first run must not notice more than a pause.
func (b *bench) installWithRestart() {
	b.t.Helper()
	done := make(chan error, 1)
	go func() { done <- b.Install(b.t.Context()) }()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !strings.Contains(b.talk.String(), "install/istio-base: create ") {
		select {
		case err := <-done:
			b.t.Fatalf("install ended before it came to Istio's CRDs: %v", err)
		case <-tick.C:
		}
	}
	b.kill("kube-apiserver")
	if err := b.provider().Create(b.t.Context()); err != nil {
		b.t.Fatalf("starting the API server again: %v", err)
	}
	if err := <-done; err != nil {
		b.t.Fatalf("install, with the API server restarted in the middle: %v", err)
	}
	b.talk.reset()
	b.do("install again", b.Install)
	says(b.t, "the second install", b.talk.String(), "no changes")
}

// kill ends a component as the kernel would that is out of memory.
func (b *bench) kill(component string) {
	b.t.Helper()
	raw, err := os.ReadFile(filepath.Join(b.plane().Dir(), "run", component+".json"))
	if err != nil {
		b.t.Fatal(err)
	}
	var record struct{ PID int }
	if err := json.Unmarshal(raw, &record); err != nil || record.PID <= 1 {
		b.t.Fatalf("record %s: %v", raw, err)
	}
	if err := syscall.Kill(record.PID, syscall.SIGKILL); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) kube() kubernetes.Interface {
	b.t.Helper()
	client := b.connect()
	return client.Kube()
}

func (b *bench) dynamic() dynamic.Interface {
	b.t.Helper()
	client := b.connect()
	made, err := dynamic.NewForConfig(client.Config())
	if err != nil {
		b.t.Fatal(err)
	}
	return made
}

// drift takes and changes objects behind the lab's back.
func (b *bench) drift() {
	ctx, kube, namespace := b.t.Context(), b.kube(), "default"
	check := func(err error) {
		b.t.Helper()
		if err != nil {
			b.t.Fatal(err)
		}
	}
	check(kube.AppsV1().DaemonSets("istio-system").Delete(ctx, "ztunnel", metav1.DeleteOptions{}))
	check(kube.CoreV1().ServiceAccounts(namespace).Delete(ctx, "appa", metav1.DeleteOptions{}))
	scale, err := kube.AppsV1().Deployments(namespace).GetScale(ctx, "appb", metav1.GetOptions{})
	check(err)
	scale.Spec.Replicas = 0
	_, err = kube.AppsV1().Deployments(namespace).UpdateScale(ctx, "appb", scale, metav1.UpdateOptions{})
	check(err)
	config, err := kube.CoreV1().ConfigMaps("istio-system").Get(ctx, "istio", metav1.GetOptions{})
	check(err)
	config.Data["mesh"] = "accessLogFile: /dev/null\n"
	_, err = kube.CoreV1().ConfigMaps("istio-system").Update(ctx, config, metav1.UpdateOptions{})
	check(err)
	says(b.t, "status", b.do("status", b.Status), "ztunnel", "not ready")
	b.dumped("drift", nil, "DaemonSet istio-system/ztunnel", "not ready", "ServiceAccount default/appa")

	b.do("install", b.Install)
	b.do("apps", b.apps)
	_, err = kube.AppsV1().DaemonSets("istio-system").Get(ctx, "ztunnel", metav1.GetOptions{})
	check(err)
	_, err = kube.CoreV1().ServiceAccounts(namespace).Get(ctx, "appa", metav1.GetOptions{})
	check(err)
	scale, err = kube.AppsV1().Deployments(namespace).GetScale(ctx, "appb", metav1.GetOptions{})
	check(err)
	if scale.Spec.Replicas != 1 {
		b.t.Errorf("appb has %d replicas", scale.Spec.Replicas)
	}
	config, err = kube.CoreV1().ConfigMaps("istio-system").Get(ctx, "istio", metav1.GetOptions{})
	check(err)
	says(b.t, "the mesh's configuration", config.Data["mesh"], "accessLogFile: /dev/stdout")
}

// conflict lets another field manager take a field of the lab's. On a cluster that the lab made it is taken back; on
// one that it found, the other is named.
func (b *bench) conflict() {
	ctx := b.t.Context()
	virtualServices := b.dynamic().
		Resource(schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"}).
		Namespace("default")
	seize := func() {
		b.t.Helper()
		theirs := &unstructured.Unstructured{}
		text := `
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: appb-delay}
spec:
  hosts: [appb.default.svc.cluster.local]
  http:
  - name: theirs
    route:
    - destination: {host: appb.default.svc.cluster.local, port: {number: 8000}}
`
		if err := yaml.Unmarshal([]byte(text), &theirs.Object); err != nil {
			b.t.Fatal(err)
		}
		if _, err := virtualServices.Apply(ctx, "appb-delay", theirs,
			metav1.ApplyOptions{FieldManager: "another-tool", Force: true}); err != nil {
			b.t.Fatal(err)
		}
	}
	seize()
	guest := b.lab("SM_PROVIDER=existing")
	err := b.fails("fault on a cluster that the lab found",
		func(ctx context.Context) error { return guest.Fault(ctx, params.DefaultFault(), false) })
	var known *problem.Problem
	if !errors.As(err, &known) || known.ID != problem.ApplyConflict.ID {
		b.t.Errorf("got %v", err)
	}
	says(b.t, "the conflict", err.Error(), "another-tool")
	b.dumped("the conflict", err, "appb-delay", "another-tool", problem.ApplyConflict.ID)

	b.do("fault on the lab's own", b.fault)
	b.do("verify", b.verify)
}

// webhook refuses ConfigMaps of the lab, as policy engines do, and gives its reason.
func (b *bench) webhook() {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var review admissionv1.AdmissionReview
		if err := json.NewDecoder(r.Body).Decode(&review); err != nil || review.Request == nil {
			http.Error(w, "no review", http.StatusBadRequest)
			return
		}
		review.Response = &admissionv1.AdmissionResponse{
			UID:    review.Request.UID,
			Result: &metav1.Status{Message: "the house does not want it"},
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(review)
	}))
	defer server.Close()
	ctx := b.t.Context()
	none, scope := admissionregistrationv1.SideEffectClassNone, admissionregistrationv1.NamespacedScope
	var ca bytes.Buffer
	if err := pem.Encode(&ca, &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}); err != nil {
		b.t.Fatal(err)
	}
	hooks := b.kube().AdmissionregistrationV1().ValidatingWebhookConfigurations()
	_, err := hooks.Create(ctx, &admissionregistrationv1.ValidatingWebhookConfiguration{
		ObjectMeta: metav1.ObjectMeta{Name: "refuser"},
		Webhooks: []admissionregistrationv1.ValidatingWebhook{{
			Name: "refuser.example.com", SideEffects: &none, AdmissionReviewVersions: []string{"v1"},
			ClientConfig: admissionregistrationv1.WebhookClientConfig{URL: &server.URL, CABundle: ca.Bytes()},
			Rules: []admissionregistrationv1.RuleWithOperations{{
				Operations: []admissionregistrationv1.OperationType{admissionregistrationv1.OperationAll},
				Rule: admissionregistrationv1.Rule{
					APIGroups:   []string{"security.istio.io"},
					APIVersions: []string{"*"}, Resources: []string{"authorizationpolicies"}, Scope: &scope,
				},
			}},
		}},
	}, metav1.CreateOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	remove := func() {
		err := hooks.Delete(context.WithoutCancel(ctx), "refuser", metav1.DeleteOptions{})
		if err != nil && !apierrors.IsNotFound(err) {
			b.t.Error(err)
		}
	}
	defer remove()
	refused := b.fails("authz", b.authz)
	says(b.t, "the refusal", refused.Error(), "refuser.example.com", "the house does not want it")
	b.dumped("the refusal", refused, "refuser.example.com", "the house does not want it", "appb-get-only")
	remove()
	b.do("authz", b.authz)
	b.do("verify", b.verify)
}

// crdsDeleted takes Istio's CRDs away, and with them every object of their kinds.
func (b *bench) crdsDeleted() {
	ctx := b.t.Context()
	crds := b.dynamic().
		Resource(schema.GroupVersionResource{
			Group: "apiextensions.k8s.io", Version: "v1",
			Resource: "customresourcedefinitions",
		})
	for _, name := range []string{"virtualservices.networking.istio.io", "authorizationpolicies.security.istio.io"} {
		if err := crds.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
			b.t.Fatal(err)
		}
	}
	says(b.t, "status", b.do("status", b.Status), "istio-base")
	b.dumped("deleted CRDs", nil, "istio-base", "virtualservices.networking.istio.io")
	b.do("install", b.Install)
	b.do("fault", b.fault)
	b.do("authz", b.authz)
	says(b.t, "verify", b.do("verify", b.verify), "13 of 13 claims proven on configuration")
}
