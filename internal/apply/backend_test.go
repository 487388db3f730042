package apply

import (
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
)

func TestWebhookIsJudgedByItsService(t *testing.T) {
	service := objects(t, "apiVersion: v1\nkind: Service\nmetadata: {name: istiod, namespace: istio-system}\n")
	hook := func(ca string) string {
		return "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {name: " +
			"v}\nwebhooks: [{name: v.istio.io, clientConfig: {" + ca +
			"service: {name: istiod, namespace: istio-system}}}]\n"
	}
	bare, signed := objects(t, hook(""))[0], objects(t, hook("caBundle: Zm9v, "))[0]
	slice := func(ready bool) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Name: "s", Namespace: "istio-system",
				Labels: map[string]string{discoveryv1.LabelServiceName: "istiod"},
			},
			Endpoints: []discoveryv1.Endpoint{
				{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(ready)}},
			},
		}
	}
	c := live(t, interceptor.Funcs{}, slice(false))
	// Istio's base chart holds the webhook of an istiod that another part installs.
	if s, err := c.webhookState(t.Context(), bare, nil); err != nil || !s.Ready {
		t.Errorf("a Service of another part: %+v %v", s, err)
	}
	if s, err := c.webhookState(t.Context(), bare, service); err != nil || s.Ready ||
		s.Message != "webhook v.istio.io: its server has not written its certificate authority yet" {
		t.Errorf("no authority: %+v %v", s, err)
	}
	if s, err := c.webhookState(t.Context(), signed, service); err != nil || s.Ready ||
		s.Message != "webhook v.istio.io: no pod of Service istio-system/istiod is ready" {
		t.Errorf("no endpoint: %+v %v", s, err)
	}
	c = live(t, interceptor.Funcs{}, slice(true))
	if s, err := c.webhookState(t.Context(), signed, service); err != nil || !s.Ready {
		t.Errorf("answering: %+v %v", s, err)
	}
}
