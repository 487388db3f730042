package mesh

import (
	"encoding/json"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// splitting is the part of a waypoint's configuration that a split is read from.
func splitting(t *testing.T, action string) *Dump {
	t.Helper()
	listener := json.RawMessage(`{"name":"main_internal","filterChains":[{
		"name":"inbound-vip|8000|http|appb.default.svc.cluster.local","filters":[{
			"name":"envoy.filters.network.http_connection_manager","typedConfig":{"routeConfig":{"virtualHosts":[
				{"domains":["*"],"routes":[{"match":{"prefix":"/"},"route":` + action + `}]}]}}}]}]}`)
	d, err := DumpOf([]json.RawMessage{listener}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSplits(t *testing.T) {
	service := Service{Namespace: "default", Name: "appb", Port: 8000}
	want := Weights{"appb-v1": 90, "appb-v2": 10}
	const weighted = `{"weightedClusters":{"clusters":[
		{"name":"outbound|8000||appb-v1.default.svc.cluster.local","weight":W1},
		{"name":"outbound|8000||appb-v2.default.svc.cluster.local","weight":W2}]}}`
	of := func(first, second string) string {
		return strings.NewReplacer("W1", first, "W2", second).Replace(weighted)
	}
	for name, tc := range map[string]struct {
		action   string
		on, off  bool
		onReason string
	}{
		"as set":  {action: of("90", "10"), on: true},
		"another": {action: of("70", "30"), onReason: "70 % to appb-v1, 30 % to appb-v2, not 90 %"},
		"one Service": {
			action: `{"cluster":"inbound-vip|8000|http|appb.default.svc.cluster.local"}`, off: true,
			onReason: "100 % to appb,",
		},
		"one version": {
			action:   `{"cluster":"outbound|8000||appb-v2.default.svc.cluster.local"}`,
			onReason: "100 % to appb-v2",
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := splitting(t, tc.action)
			if on, reason := Splits(d, service, want); on != tc.on || !strings.Contains(reason, tc.onReason) {
				t.Errorf("splits: %v, %s", on, reason)
			}
			if off, reason := SplitsNothing(d, service); off != tc.off {
				t.Errorf("splits nothing: %v, %s", off, reason)
			}
		})
	}
	if on, reason := Splits(&Dump{}, service, want); on || reason == "" {
		t.Errorf("without a listener: %v, %s", on, reason)
	}
	if off, _ := SplitsNothing(&Dump{}, service); !off {
		t.Error("a waypoint without listeners splits something")
	}
}

func TestRouteTroubles(t *testing.T) {
	service := Service{Namespace: "default", Name: "appb", Port: 8000}
	kind, weight := gatewayv1.Kind("Service"), int32(70)
	route := func(parent string, status metav1.ConditionStatus) *gatewayv1.HTTPRoute {
		r := &gatewayv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Name: "appb-split"}}
		r.Spec.ParentRefs = []gatewayv1.ParentReference{{Kind: &kind, Name: gatewayv1.ObjectName(parent)}}
		r.Status.Parents = []gatewayv1.RouteParentStatus{{Conditions: []metav1.Condition{{
			Type: "ResolvedRefs", Status: status, Reason: "BackendNotFound", Message: "appb-v2 not found",
		}}}}
		backend := gatewayv1.HTTPBackendRef{}
		backend.Name, backend.Weight = "appb-v1", &weight
		r.Spec.Rules = []gatewayv1.HTTPRouteRule{{BackendRefs: []gatewayv1.HTTPBackendRef{backend}}}
		return r
	}
	for name, tc := range map[string]struct {
		route *gatewayv1.HTTPRoute
		says  string
	}{
		"missing":         {nil, "does not exist"},
		"another Service": {route("appa", metav1.ConditionTrue), "attached to Service/appa, not to Service/appb"},
		"not resolved": {route("appb", metav1.ConditionFalse), "ResolvedRefs is False: BackendNotFound: appb-v2 " +
			"not found"},
		"good": {route("appb", metav1.ConditionTrue), ""},
	} {
		found := RouteTrouble(service, "appb-split", tc.route)
		if (found == nil) != (tc.says == "") || found != nil && !strings.Contains(found.Seen, tc.says) {
			t.Errorf("%s: %v", name, found)
		}
	}
	if found := WeightsTrouble(Weights{"appb-v1": 90}, route("appb", metav1.ConditionTrue)); found == nil ||
		!strings.Contains(found.Seen, "70 % to appb-v1, not for 90 %") {
		t.Errorf("another weight: %v", found)
	}
	if found := WeightsTrouble(Weights{"appb-v1": 70}, route("appb", metav1.ConditionTrue)); found != nil {
		t.Errorf("the weight that is wanted: %v", found)
	}
}
