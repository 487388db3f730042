package apply

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"ambientlab/internal/problem"
)

// forgotten is a Gateway as istiod left one whose pods it had not counted.
const forgotten = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: w, namespace: default, generation: 1}
status:
  conditions:
  - {type: Accepted, status: "True", reason: Accepted, message: Resource accepted, observedGeneration: 1}
  - type: Programmed
    status: "False"
    reason: AddressNotAssigned
    message: 'Failed to assign to any requested addresses: no instances found for hostname "w.default.svc.cluster.local"'
    observedGeneration: 1
`

func serviceOf(gateway string, kind corev1.ServiceType) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: gateway, Namespace: "default", Labels: map[string]string{labelGatewayName: gateway}},
		Spec:       corev1.ServiceSpec{Type: kind},
	}
}

func sliceOf(service string, ready bool) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: service, Namespace: "default", Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		Endpoints:  []discoveryv1.Endpoint{{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(ready)}}},
	}
}

func TestOverlookedGateway(t *testing.T) {
	addressed := serviceOf("w", corev1.ServiceTypeLoadBalancer)
	addressed.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.1"}}
	for name, tc := range map[string]struct {
		world []client.Object
		edit  func(*unstructured.Unstructured)
		want  bool
	}{
		"no Service yet":           {nil, nil, false},
		"no pod ready":             {[]client.Object{serviceOf("w", corev1.ServiceTypeClusterIP), sliceOf("w", false)}, nil, false},
		"pods ready":               {[]client.Object{serviceOf("w", corev1.ServiceTypeClusterIP), sliceOf("w", true)}, nil, true},
		"an address still to come": {[]client.Object{serviceOf("w", corev1.ServiceTypeLoadBalancer), sliceOf("w", true)}, nil, false},
		"pods ready and addressed": {[]client.Object{addressed, sliceOf("w", true)}, nil, true},
		"a status of an older Gateway": {
			[]client.Object{serviceOf("w", corev1.ServiceTypeClusterIP), sliceOf("w", true)},
			func(g *unstructured.Unstructured) { g.SetGeneration(2) }, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			gateway := objects(t, forgotten)[0]
			if tc.edit != nil {
				tc.edit(gateway)
			}
			says := gatewayState(gateway)
			s, err := live(t, interceptor.Funcs{}, tc.world...).overlooked(t.Context(), gateway, says)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.kind.ID == problem.GatewayOverlooked.ID && s.patience > 0; got != tc.want || s.done || s.failed {
				t.Errorf("overlooked %v, want %v: %+v", got, tc.want, s)
			}
			if tc.want && !strings.HasSuffix(s.message, "; yet pods are ready behind Service w") {
				t.Error(s.message)
			}
		})
	}
}

// TestWaitGivesUpOnAnOverlookedGateway wants the wait to end long before its deadline, with the problem's own name, and
// one that istiod sees late not to be mistaken for one that it never will.
func TestWaitGivesUpOnAnOverlookedGateway(t *testing.T) {
	for name, noticed := range map[string]bool{"for good": false, "for a while": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				gateway := objects(t, forgotten)[0]
				c := live(t, interceptor.Funcs{}, gateway, serviceOf("w", corev1.ServiceTypeClusterIP), sliceOf("w", true))
				start := time.Now()
				ended := make(chan error, 1)
				go func() { ended <- c.Wait(t.Context(), Set{Name: "p", Objects: objects(t, forgotten)}) }()
				if noticed {
					if err := wait(t.Context(), overlookedAfter-time.Second); err != nil {
						t.Fatal(err)
					}
					if err := c.api.Get(t.Context(), client.ObjectKeyFromObject(gateway), gateway); err != nil {
						t.Fatal(err)
					}
					conditions, _, _ := unstructured.NestedSlice(gateway.Object, "status", "conditions")
					conditions[1].(map[string]any)["status"] = "True"
					if err := unstructured.SetNestedSlice(gateway.Object, conditions, "status", "conditions"); err != nil {
						t.Fatal(err)
					}
					if err := c.api.Update(t.Context(), gateway); err != nil {
						t.Fatal(err)
					}
				}
				err := <-ended
				if noticed {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if !problem.Is(err, problem.GatewayOverlooked) {
					t.Errorf("got %v", err)
				}
				if took := time.Since(start); took < overlookedAfter || took > overlookedAfter+2*relook {
					t.Errorf("it gave up after %s", took)
				}
			})
		})
	}
}
