package mesh

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/lesson/params"
)

//revive:disable:line-length-limit objects and configuration in raw strings

func appb() Service { return Service{Namespace: "default", Name: "appb", Port: 8000} }

const (
	appaPrincipal    = "cluster.local/ns/default/sa/appa"
	gatewayPrincipal = "cluster.local/ns/default/sa/gateway-istio"
)

func fault(percent float64, delay time.Duration, path string) params.Fault {
	return params.Fault{Path: path, Percent: percent, Delay: delay, Exact: true}
}

func authz(methods []string, principals ...string) Policy {
	return Policy{Namespace: "default", Name: "appb-get-only", Principals: principals, Methods: methods}
}

func TestHeldOnCapturedDumps(t *testing.T) {
	get := []string{"GET"}
	other := Service{Namespace: "default", Name: "appa", Port: 8000}
	for _, tc := range []struct {
		dump, what string
		ask        func(d *Dump) (bool, string)
		reason     string // "" where it holds
	}{
		{"waypoint", "service", func(d *Dump) (bool, string) { return HandlesService(d, appb()) }, ""},
		{
			"waypoint", "another service", func(d *Dump) (bool, string) { return HandlesService(d, other) },
			"the waypoint has nothing for appa.default.svc.cluster.local:8000",
		},
		{
			"waypoint-nack", "service", func(d *Dump) (bool, string) { return HandlesService(d, appb()) },
			"the waypoint has nothing for appb",
		},

		{
			"waypoint-fault", "fault",
			func(d *Dump) (bool, string) { return Delays(d, appb(), fault(50, 2*time.Second, "/headers")) }, "",
		},
		{
			"waypoint-both", "fault",
			func(d *Dump) (bool, string) { return Delays(d, appb(), fault(50, 2*time.Second, "/headers")) }, "",
		},
		{
			"waypoint-fault", "share",
			func(d *Dump) (bool, string) { return Delays(d, appb(), fault(30, 2*time.Second, "/headers")) },
			"the waypoint delays 50 % of /headers by 2s, not 30 % of /headers by 2s",
		},
		{
			"waypoint-fault", "delay",
			func(d *Dump) (bool, string) { return Delays(d, appb(), fault(50, time.Second, "/headers")) },
			"by 2s, not 50 % of /headers by 1s",
		},
		{
			"waypoint-fault", "path",
			func(d *Dump) (bool, string) { return Delays(d, appb(), fault(50, 2*time.Second, "/ip")) },
			"the waypoint does not delay /ip",
		},
		{"waypoint-fault", "prefix", func(d *Dump) (bool, string) {
			return Delays(d, appb(), params.DefaultFault())
		}, "the waypoint does not delay /headers/x: /headers is an exact path there, not a prefix"},
		{
			"waypoint", "no fault",
			func(d *Dump) (bool, string) { return Delays(d, appb(), fault(50, 2*time.Second, "/headers")) },
			"the waypoint does not delay /headers",
		},
		{
			"waypoint", "fault of nothing",
			func(d *Dump) (bool, string) { return Delays(d, appb(), fault(0, 2*time.Second, "/headers")) }, "",
		},
		{"waypoint", "fault gone", func(d *Dump) (bool, string) { return DelaysNone(d, appb(), "/headers") }, ""},
		{
			"waypoint-fault", "fault not gone",
			func(d *Dump) (bool, string) { return DelaysNone(d, appb(), "/headers") },
			"the waypoint still delays 50 % of /headers by 2s",
		},
		{"waypoint-fault", "other path", func(d *Dump) (bool, string) { return DelaysNone(d, appb(), "/ip") }, ""},

		{
			"waypoint-authz", "policy",
			func(d *Dump) (bool, string) { return Enforces(d, appb(), authz(get, gatewayPrincipal, appaPrincipal)) },
			"",
		},
		{
			"waypoint-both", "policy",
			func(d *Dump) (bool, string) { return Enforces(d, appb(), authz(get, appaPrincipal, gatewayPrincipal)) },
			"",
		},
		{
			"waypoint-authz", "too many",
			func(d *Dump) (bool, string) { return Enforces(d, appb(), authz(get, gatewayPrincipal)) },
			"allows " + appaPrincipal + ", " + gatewayPrincipal + " under default/appb-get-only, not " +
				gatewayPrincipal,
		},
		{
			"waypoint-authz-without-appa", "without",
			func(d *Dump) (bool, string) { return Enforces(d, appb(), authz(get, gatewayPrincipal)) }, "",
		},
		{
			"waypoint-authz-without-appa", "too few",
			func(d *Dump) (bool, string) { return Enforces(d, appb(), authz(get, gatewayPrincipal, appaPrincipal)) },
			"the waypoint allows " + gatewayPrincipal + " under",
		},
		{"waypoint-authz", "methods", func(d *Dump) (bool, string) {
			return Enforces(d, appb(), authz([]string{"GET", "POST"}, appaPrincipal, gatewayPrincipal))
		}, "allows the methods GET under default/appb-get-only, not GET, POST"},
		{
			"waypoint-authz-nobody", "nobody", func(d *Dump) (bool, string) { return Enforces(d, appb(), authz(get)) },
			"",
		},
		{
			"waypoint-authz-nobody", "nobody, not appa",
			func(d *Dump) (bool, string) { return Enforces(d, appb(), authz(get, appaPrincipal)) },
			"the waypoint allows no caller under",
		},
		{
			"waypoint-authz", "somebody, not nobody",
			func(d *Dump) (bool, string) { return Enforces(d, appb(), authz(get)) }, "not no caller",
		},
		{
			"waypoint-authz-selector", "selector is ignored",
			func(d *Dump) (bool, string) { return Enforces(d, appb(), authz(get, appaPrincipal, gatewayPrincipal)) },
			"the waypoint does not enforce default/appb-get-only",
		},
		{
			"waypoint", "policy gone",
			func(d *Dump) (bool, string) { return DoesNotEnforce(d, appb(), "default", "appb-get-only") }, "",
		},
		{
			"waypoint-authz-nobody", "policy not gone",
			func(d *Dump) (bool, string) { return DoesNotEnforce(d, appb(), "default", "appb-get-only") },
			"the waypoint still enforces",
		},

		{
			"gateway", "to the waypoint",
			func(d *Dump) (bool, string) { return SendsToWaypoint(d, appb(), []string{"10.244.2.30"}) }, "",
		},
		{"gateway", "to any waypoint", func(d *Dump) (bool, string) { return SendsToWaypoint(d, appb(), nil) }, ""},
		{
			"gateway", "to another",
			func(d *Dump) (bool, string) { return SendsToWaypoint(d, appb(), []string{"10.0.0.1"}) },
			"to a waypoint at 10.244.2.30:15008, which is none of 10.0.0.1",
		},
		{
			"gateway-no-label", "around", func(d *Dump) (bool, string) { return SendsToWaypoint(d, appb(), nil) },
			"straight to 10.244.1.20:8080, around the waypoint",
		},
		{"gateway-no-label", "gone", func(d *Dump) (bool, string) { return SendsToPods(d, appb()) }, ""},
		{"gateway", "not gone", func(d *Dump) (bool, string) { return SendsToPods(d, appb()) }, "still sends requests"},
		{
			"waypoint", "no gateway", func(d *Dump) (bool, string) { return SendsToWaypoint(d, appb(), nil) },
			"the gateway does not know appb",
		},
		{"gateway", "route", func(d *Dump) (bool, string) { return RoutesTo(d, "appb.opssec.in", appb()) }, ""},
		{
			"gateway", "no route", func(d *Dump) (bool, string) { return RoutesTo(d, "appa.opssec.in", appb()) },
			"no route for appa.opssec.in",
		},
		{
			"gateway", "route elsewhere", func(d *Dump) (bool, string) { return RoutesTo(d, "appb.opssec.in", other) },
			"do not lead to appa",
		},
	} {
		t.Run(tc.dump+"/"+tc.what, func(t *testing.T) {
			held, reason := tc.ask(captured(t, tc.dump))
			if held != (tc.reason == "") || !strings.Contains(reason, tc.reason) || (held && reason != "") {
				t.Errorf("%v, %q; want reason %q", held, reason, tc.reason)
			}
		})
	}
}

// protojson writes the same resources under other field names; the answers must not depend on it.
func TestHeldOnResourcesFromIstiod(t *testing.T) {
	var dump struct {
		Configs []struct {
			Dynamic []struct {
				Active struct {
					Listener json.RawMessage `json:"listener"`
				} `json:"active_state"`
			} `json:"dynamic_listeners"`
		} `json:"configs"`
	}
	if err := json.Unmarshal(capturedBytes(t, "waypoint-both"), &dump); err != nil {
		t.Fatal(err)
	}
	var listeners []json.RawMessage
	for _, c := range dump.Configs {
		for _, l := range c.Dynamic {
			listeners = append(listeners, camelled(t, l.Active.Listener))
		}
	}
	d, err := DumpOf(listeners, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if held, reason := Delays(d, appb(), fault(50, 2*time.Second, "/headers")); !held {
		t.Error(reason)
	}
	if held, reason := Enforces(d, appb(), authz([]string{"GET"}, appaPrincipal, gatewayPrincipal)); !held {
		t.Error(reason)
	}
	if _, err := DumpOf([]json.RawMessage{[]byte("{")}, nil, nil); err == nil {
		t.Error("half a resource is read")
	}
}

// camelled renames proto field names to JSON names, everywhere.
func camelled(t *testing.T, raw json.RawMessage) json.RawMessage {
	t.Helper()
	n, err := decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	var rename func(any) any
	rename = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			out := map[string]any{}
			for k, inner := range v {
				out[camel(k)] = rename(inner)
			}
			return out
		case []any:
			for i := range v {
				v[i] = rename(v[i])
			}
		}
		return v
	}
	out, err := json.Marshal(rename(n.value))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Routes may stand in a configuration of their own, which the listener only names.
func TestFaultInNamedRoutes(t *testing.T) {
	listener := `{"filter_chains":[{"name":"inbound-vip|8000|http|appb.default.svc.cluster.local","filters":[{
		"name":"envoy.filters.network.http_connection_manager","typed_config":{"rds":{"route_config_name":"r"}}}]}]}`
	routes := `{"name":"r","virtual_hosts":[{"routes":[
		{"match":{"path_separated_prefix":"/slow"},"typed_per_filter_config":{"envoy.filters.http.fault":{"delay":{"fixed_delay":"0.500s","percentage":{"numerator":25}}}}},
		{"match":{"safe_regex":{"regex":".*"}},"typed_per_filter_config":{"envoy.filters.http.fault":{"delay":{"fixed_delay":"9s","percentage":{"numerator":9}}}}},
		{"match":{"prefix":"/"}}]}]}`
	d, err := DumpOf([]json.RawMessage{[]byte(listener)}, []json.RawMessage{[]byte(routes)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	prefix := fault(25, 500*time.Millisecond, "/slow/down")
	if held, reason := Delays(d, appb(), prefix); held ||
		reason != "the waypoint delays /slow/down/x as well: /slow/down is a prefix there, not an exact path" {
		t.Error(held, reason)
	}
	prefix.Exact = false
	if held, reason := Delays(d, appb(), prefix); !held {
		t.Error(reason)
	}
	if gone, reason := DelaysNone(d, appb(), "/slower"); !gone {
		t.Error(reason)
	}
}

// Anything that Istio does not write for the lab's policy must not pass for it.
func TestAuthzIsExact(t *testing.T) {
	for name, tc := range map[string]struct{ principals, permissions, reason string }{
		"everybody": {
			`[{"any":true}]`, `[{"header":{"name":":method","string_match":{"exact":"GET"}}}]`,
			"allows every caller under",
		},
		"prefix": {
			`[{"filter_state":{"key":"io.istio.peer_principal","string_match":{"prefix":"spiffe://x"}}}]`,
			`[]`, `allows {"prefix":"spiffe://x"} under`,
		},
		"negation": {`[{"not_id":{"filter_state":{"string_match":{"exact":"spiffe://a"}}}}]`, `[]`, "allows not {"},
		"any method": {
			`[{"authenticated":{"principal_name":{"exact":"spiffe://a"}}}]`, `[{"any":true}]`,
			"allows the methods any",
		},
	} {
		t.Run(name, func(t *testing.T) {
			listener := `{"filter_chains":[{"name":"inbound-vip|8000|http|appb.default.svc.cluster.local","filters":[{
				"name":"envoy.filters.network.http_connection_manager","typed_config":{"http_filters":[{"name":"envoy.filters.http.rbac",
				"typed_config":{"rules":{"action":"ALLOW","policies":{"ns[default]-policy[appb-get-only]-rule[0]":
				{"principals":` + tc.principals + `,"permissions":` + tc.permissions + `}}}}}]}}]}]}`
			d, err := DumpOf([]json.RawMessage{[]byte(listener)}, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			held, reason := Enforces(d, appb(), authz([]string{"GET"}, "a"))
			if held || !strings.Contains(reason, tc.reason) {
				t.Errorf("%v, %q", held, reason)
			}
		})
	}
}

func TestRejections(t *testing.T) {
	d := captured(t, "waypoint-nack")
	if len(d.Rejections) != 2 {
		t.Fatalf("%+v", d.Rejections)
	}
	r := d.Rejections[0]
	if r.Resource != "listener connect_terminate" ||
		!strings.Contains(r.Details, "waypoint_downstream_peer_metadata") || r.At.IsZero() {
		t.Errorf("%+v", r)
	}
}

func TestParseDumpRefusesOtherThings(t *testing.T) {
	for _, text := range []string{"", "no healthy upstream", `{"error":"x"}`} {
		if _, err := ParseDump([]byte(text)); err == nil {
			t.Errorf("%q is read as a dump", text)
		}
	}
	d, err := ParseDump(
		[]byte(`{"configs":[{"@type":"x.ListenersConfigDump","dynamic_listeners":[{"name":"a",` +
			`"warming_state":{"listener":{"name":"a"}}}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, reason := HandlesService(d, appb()); reason != "the waypoint does not serve its listeners yet (warming): a" {
		t.Error(reason)
	}
	if d.WriteListeners(nil) == nil || d.WriteRoutes(nil) == nil {
		t.Error("an empty table is written; istioctl gives an error")
	}
}
