package lab

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/problem"
)

// sabotaged opens ways around the policy while sm:authz -strict is on: each is found.
func (b *bench) sabotaged() {
	b.t.Helper()
	ctx := b.t.Context()
	of := func(resource string) schema.GroupVersionResource {
		return schema.GroupVersionResource{Group: "security.istio.io", Version: "v1", Resource: resource}
	}
	policies := b.dynamic().Resource(of("authorizationpolicies")).Namespace("default")
	open := &unstructured.Unstructured{}
	text := `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: everybody}
spec:
  targetRefs: [{kind: Service, group: "", name: appb}]
  action: ALLOW
  rules: [{}]
`
	if err := yaml.Unmarshal([]byte(text), &open.Object); err != nil {
		b.t.Fatal(err)
	}
	if _, err := policies.Create(ctx, open, metav1.CreateOptions{}); err != nil {
		b.t.Fatal(err)
	}
	authentications := b.dynamic().Resource(of("peerauthentications")).Namespace("default")
	if err := authentications.Delete(ctx, "strict", metav1.DeleteOptions{}); err != nil {
		b.t.Fatal(err)
	}
	// istiod takes a moment to see them.
	var err error
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); {
		b.out.reset()
		if err = b.verify(ctx); err != nil && strings.Contains(err.Error(), "4 were refuted") {
			break
		}
	}
	if !problem.Is(err, problem.ClaimRefuted) {
		b.t.Errorf("got %v", err)
	}
	b.dumped("a policy that allows everything", err, "AuthorizationPolicy everybody")
	says(b.t, "verify", b.out.String(), "policy[everybody]",
		"no PeerAuthentication asks for STRICT mutual TLS for appb")
	if err := policies.Delete(ctx, "everybody", metav1.DeleteOptions{}); err != nil {
		b.t.Error(err)
	}
}

// debugClosed wants istiod to give no proxy's configuration to other users of this machine.
func (b *bench) debugClosed() {
	b.t.Helper()
	var state struct{ Ports map[string]int }
	if err := json.Unmarshal([]byte(read(b.t, filepath.Join(b.plane().Dir(), "lab.json"))), &state); err != nil {
		b.t.Fatal(err)
	}
	for path, want := range map[string]int{
		"/ready": http.StatusOK, "/debug/configz": http.StatusNotFound,
		"/debug/syncz": http.StatusNotFound,
	} {
		response, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", state.Ports["istiod-http"], path))
		if err != nil {
			b.t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != want {
			b.t.Errorf("istiod answers %s with %s", path, response.Status)
		}
	}
}
