package mesh

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/yaml"

	"ambientlab/internal/problem"
)

//revive:disable:line-length-limit objects and configuration in raw strings

// overlooked is the status that istiod leaves where it has overlooked a Gateway's pods.
const overlooked = `
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

func fromYAML(t *testing.T, text string) *unstructured.Unstructured {
	t.Helper()
	obj := &unstructured.Unstructured{}
	data, err := yaml.YAMLToJSON([]byte(text))
	if err == nil {
		err = obj.UnmarshalJSON(data)
	}
	if err != nil {
		t.Fatal(err)
	}
	return obj
}

// Each object in these files says in its annotation which state it is in.
func TestKinds(t *testing.T) {
	judged := map[string]bool{}
	for _, file := range []string{"gateway.yaml", "route.yaml"} {
		text, err := os.ReadFile(filepath.Join("../../testdata/mesh/kinds", file))
		if err != nil {
			t.Fatal(err)
		}
		for document := range strings.SplitSeq("\n"+string(text), "\n---") {
			obj := fromYAML(t, document)
			t.Run(obj.GetKind()+"/"+obj.GetName(), func(t *testing.T) {
				judged[obj.GetKind()] = true
				s, err := Kinds()[obj.GroupVersionKind().GroupKind()].State(t.Context(),
					fake.NewClientBuilder().Build(), obj)
				if err != nil {
					t.Fatal(err)
				}
				got := "done"
				if !s.Ready {
					got = "waiting: " + s.Message
				}
				if want := obj.GetAnnotations()["want"]; got != want {
					t.Errorf("got  %s\nwant %s", got, want)
				}
			})
		}
	}
	for gk := range Kinds() {
		if !judged[gk.Kind] && gk.Kind != "GRPCRoute" { // it has the status of an HTTPRoute
			t.Errorf("no status of a %s", gk.Kind)
		}
	}
}

func TestGatewayIsReadyWithItsDeployment(t *testing.T) {
	gateway := fromYAML(t, strings.NewReplacer(`status: "False"`, `status: "True"`).Replace(overlooked))
	state := Kinds()[gateway.GroupVersionKind().GroupKind()].State
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{
		Name: "w", Namespace: "default", Generation: 1, Labels: map[string]string{GatewayLabel: "w"},
	}}
	if s, err := state(t.Context(), fake.NewClientBuilder().Build(), gateway); err != nil || !s.Ready {
		t.Errorf("without a Deployment: %+v %v", s, err)
	}
	s, err := state(t.Context(), fake.NewClientBuilder().WithObjects(d).Build(), gateway)
	if err != nil || s.Ready ||
		s.Message != "its Deployment w is not available: its controller has not seen its latest change yet" {
		t.Errorf("starting: %+v %v", s, err)
	}
	d.Status = appsv1.DeploymentStatus{
		ObservedGeneration: 1, Replicas: 1, UpdatedReplicas: 1, ReadyReplicas: 1,
		AvailableReplicas: 1,
	}
	if s, err := state(t.Context(), fake.NewClientBuilder().WithObjects(d).Build(), gateway); err != nil || !s.Ready {
		t.Errorf("available: %+v %v", s, err)
	}
}

func serviceOf(gateway string, kind corev1.ServiceType) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: gateway, Namespace: "default",
			Labels: map[string]string{GatewayLabel: gateway},
		},
		Spec: corev1.ServiceSpec{Type: kind},
	}
}

func sliceOf(service string, ready bool) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: service, Namespace: "default",
			Labels: map[string]string{discoveryv1.LabelServiceName: service},
		},
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{"10.0.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(ready)}},
		},
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
		"no Service yet": {nil, nil, false},
		"no pod ready": {
			[]client.Object{serviceOf("w", corev1.ServiceTypeClusterIP), sliceOf("w", false)},
			nil, false,
		},
		"pods ready": {
			[]client.Object{serviceOf("w", corev1.ServiceTypeClusterIP), sliceOf("w", true)},
			nil, true,
		},
		"an address still to come": {
			[]client.Object{serviceOf("w", corev1.ServiceTypeLoadBalancer), sliceOf("w", true)}, nil, false,
		},
		"pods ready and addressed": {[]client.Object{addressed, sliceOf("w", true)}, nil, true},
		"a status of an older Gateway": {
			[]client.Object{serviceOf("w", corev1.ServiceTypeClusterIP), sliceOf("w", true)},
			func(g *unstructured.Unstructured) { g.SetGeneration(2) }, false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			gateway := fromYAML(t, overlooked)
			if tc.edit != nil {
				tc.edit(gateway)
			}
			api := fake.NewClientBuilder().WithObjects(tc.world...).Build()
			s, err := Kinds()[gateway.GroupVersionKind().GroupKind()].State(t.Context(), api, gateway)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Kind.ID == problem.GatewayOverlooked.ID && s.Limit > 0; got != tc.want || s.Ready || s.Failed {
				t.Errorf("overlooked %v, want %v: %+v", got, tc.want, s)
			}
			if tc.want && !strings.HasSuffix(s.Message, "; but pods of Service w are ready") {
				t.Error(s.Message)
			}
		})
	}
}
