package mesh

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/lesson/params"
)

// dumpOf is the configuration of a proxy with these listeners, routes and endpoints, each an xDS resource as JSON.
func dumpOf(t *testing.T, listeners, routes, endpoints []string) *Dump {
	t.Helper()
	raw := func(texts []string) (all []json.RawMessage) {
		for _, text := range texts {
			all = append(all, json.RawMessage(text))
		}
		return all
	}
	d, err := DumpOf(raw(listeners), raw(routes), raw(endpoints))
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// managed is a listener that handles appb with an HTTP connection manager.
func managed(config string) []string {
	return []string{chain("inbound-vip|8000|http|appb.default.svc.cluster.local", httpManager, config)}
}

func chain(name, filter, config string) string {
	return fmt.Sprintf(`{"filter_chains":[{"name":%q,"filters":[{"name":%q,"typed_config":%s}]}]}`, name, filter,
		config)
}

// filters are HTTP filters by name, in their order.
func filters(names ...string) string {
	var all []string
	for _, name := range names {
		all = append(all, fmt.Sprintf(`{"name":%q}`, name))
	}
	return `{"http_filters":[` + strings.Join(all, ",") + `]}`
}

// answers compares what a check of a configuration says with what is right: held, and otherwise a part of the reason.
func answers(t *testing.T, name string, held bool, reason, want string) {
	t.Helper()
	if held != (want == "") || held != (reason == "") || !strings.Contains(reason, want) {
		t.Errorf("%s: %v, %q; want %v because of %q", name, held, reason, want == "", want)
	}
}

func TestServiceNeedsAnHTTPChainOfItsOwn(t *testing.T) {
	const tcp = "envoy.filters.network.tcp_proxy"
	appbChain := "inbound-vip|8000|http|appb.default.svc.cluster.local"
	for name, tc := range map[string]struct {
		listeners []string
		want      string
	}{
		"as HTTP": {[]string{chain(appbChain, httpManager, "{}")}, ""},
		"as TCP": {
			[]string{chain("inbound-vip|8000|tcp|appb.default.svc.cluster.local", tcp, "{}")},
			"plain TCP",
		},
		"both": {[]string{chain(appbChain, tcp, "{}"), chain(appbChain, httpManager, "{}")}, ""},
		"another port": {
			[]string{chain("inbound-vip|80|http|appb.default.svc.cluster.local", httpManager, "{}")},
			"nothing for",
		},
		"another host": {
			[]string{chain("inbound-vip|8000|http|appc.default.svc.cluster.local", httpManager, "{}")},
			"nothing for",
		},
		"nothing": {nil, "no listeners yet"},
	} {
		d := dumpOf(t, tc.listeners, nil, nil)
		held, reason := HandlesService(d, appb())
		answers(t, name, held, reason, tc.want)
		gone, reason := HandlesNothingFor(d, appb())
		if gone == held || gone != (reason == "") {
			t.Errorf("%s: held %v, gone %v, %q", name, held, gone, reason)
		}
	}
	warming := &Dump{warming: []string{"main_internal"}}
	held, reason := HandlesService(warming, appb())
	answers(t, "warming", held, reason, "(warming): main_internal")
}

// endpointsOf are the endpoints of appb in a gateway, each with the waypoint's address in its metadata or without.
func endpointsOf(waypoints ...string) string {
	var ends []string
	for i, w := range waypoints {
		metadata := "{}"
		if w != "" {
			metadata = fmt.Sprintf(`{"filter_metadata":{"envoy.filters.listener.original_dst":{"waypoint":%q}}}`, w)
		}
		ends = append(ends, fmt.Sprintf(
			`{"endpoint":{"address":{"socket_address":{"address":"10.0.0.%d","port_value":8080}}},"metadata":%s}`, i+1,
			metadata))
	}
	return fmt.Sprintf(`{"cluster_name":"outbound|8000||appb.default.svc.cluster.local",
		"endpoints":[{"lb_endpoints":[%s]}]}`, strings.Join(ends, ","))
}

func TestGatewayGoesToTheWaypoint(t *testing.T) {
	internal := `{"cluster_name":"outbound|8000||appb.default.svc.cluster.local","endpoints":[{"lb_endpoints":[
		{"endpoint":{"address":{"envoy_internal_address":{"endpoint_id":"10.9.9.9:8080"}}}}]}]}`
	for name, tc := range map[string]struct {
		endpoints  string
		waypoints  []string
		held, gone string
	}{
		"an IPv4 waypoint": {endpointsOf("10.0.1.1:15008"), []string{"10.0.1.1"}, "", "10.0.1.1:15008"},
		"an IPv6 waypoint": {endpointsOf("[fd00::1]:15008"), []string{"fd00::1"}, "", "[fd00::1]:15008"},
		"any waypoint":     {endpointsOf("10.0.1.1:15008"), nil, "", "10.0.1.1:15008"},
		"one of two": {
			endpointsOf("10.0.1.1:15008", "10.0.1.2:15008"),
			[]string{"10.0.1.1", "10.0.1.2"},
			"",
			"10.0.1.1",
		},
		"another waypoint": {
			endpointsOf("10.0.1.1:15008", "10.0.1.2:15008"),
			[]string{"10.0.1.1"},
			"10.0.1.2:15008", "10.0.1.1",
		},
		"around it":            {endpointsOf(""), nil, "10.0.0.1:8080", ""},
		"one of two around it": {endpointsOf("10.0.1.1:15008", ""), nil, "10.0.0.2:8080", "10.0.1.1"},
		"an internal address":  {internal, nil, "10.9.9.9:8080", ""},
		"no endpoints":         {endpointsOf(), nil, "no endpoint for", "no endpoint for"},
		"endpoints of another": {
			strings.Replace(endpointsOf(""), "appb", "appc", 1), nil, "does not know",
			"does not know",
		},
		"endpoints of all else": {`{"cluster_name":"x"}`, nil, "does not know", "does not know"},
	} {
		d := dumpOf(t, nil, nil, []string{tc.endpoints})
		held, reason := SendsToWaypoint(d, appb(), tc.waypoints)
		answers(t, name+", held", held, reason, tc.held)
		gone, reason := SendsToPods(d, appb())
		answers(t, name+", gone", gone, reason, tc.gone)
	}
}

// A gateway answers with 503 only where no endpoint of a Service counts as ready.
func TestGatewayCountsEndpointsAsUnready(t *testing.T) {
	both := endpointsOf("10.0.1.1:15008", "10.0.1.2:15008")
	unready := `"health_status":"UNHEALTHY","metadata"`
	for name, tc := range map[string]struct {
		endpoints string
		want      bool
	}{
		"without a word":      {both, false},
		"both ready":          {strings.ReplaceAll(both, `"metadata"`, `"health_status":"HEALTHY","metadata"`), false},
		"one of two unready":  {strings.Replace(both, `"metadata"`, unready, 1), false},
		"both unready":        {strings.ReplaceAll(both, `"metadata"`, unready), true},
		"no endpoint":         {endpointsOf(), false},
		"unready, of another": {strings.Replace(endpointsOf("10.0.1.1:15008"), "appb", "appc", 1), false},
	} {
		got, reason := countsUnready(dumpOf(t, nil, nil, []string{tc.endpoints}), appb())
		if got != tc.want || got != strings.Contains(reason, "not ready: 10.0.0.1:8080, 10.0.0.2:8080") {
			t.Errorf("%s: %v, %q", name, got, reason)
		}
	}
}

func TestRouteOfAHostName(t *testing.T) {
	routes := func(domain, cluster string) string {
		return fmt.Sprintf(`{"virtual_hosts":[{"domains":["other"],"routes":[]},
			{"domains":[%q],"routes":[{"route":{"cluster":"x"}},{"route":{"cluster":%q}}]}]}`, domain, cluster)
	}
	const cluster = "outbound|8000||appb.default.svc.cluster.local"
	for name, tc := range map[string]struct{ routes, want string }{
		"the name":           {routes("appb.opssec.in", cluster), ""},
		"the name, any port": {routes("appb.opssec.in:*", cluster), ""},
		"another name":       {routes("appc.opssec.in", cluster), "no route for"},
		"another cluster": {
			routes("appb.opssec.in", "outbound|80||appb.default.svc.cluster.local"),
			"do not lead to",
		},
	} {
		held, reason := RoutesTo(dumpOf(t, nil, []string{tc.routes}, nil), "appb.opssec.in", appb())
		answers(t, name, held, reason, tc.want)
	}
}

// delayed is a connection manager with one route, which delays a share of the requests.
func delayed(match, percentage, length string) string {
	return fmt.Sprintf(`{"route_config":{"virtual_hosts":[{"routes":[{"match":%s,"typed_per_filter_config":{%q:
		{"delay":{"fixed_delay":%q,"percentage":%s}}}}]}]}}`, match, faultFilter, length, percentage)
}

func TestShareOfADelay(t *testing.T) {
	for name, tc := range map[string]struct {
		percentage string
		percent    float64
	}{
		"hundredths, not written": {`{"numerator":50}`, 50},
		"hundredths":              {`{"numerator":50,"denominator":"HUNDRED"}`, 50},
		"ten thousandths":         {`{"numerator":1234,"denominator":"TEN_THOUSAND"}`, 12.34},
		"millionths":              {`{"numerator":11399,"denominator":"MILLION"}`, 1.1399},
		"as text":                 {`{"numerator":"50"}`, 50},
	} {
		d := dumpOf(t, managed(delayed(`{"path":"/headers"}`, tc.percentage, "2s")), nil, nil)
		held, reason := Delays(d, appb(), fault(tc.percent, 2*time.Second, "/headers"))
		answers(t, name, held, reason, "")
		held, reason = Delays(d, appb(), fault(tc.percent+0.01, 2*time.Second, "/headers"))
		answers(t, name+", a little more", held, reason, fmt.Sprintf("delays %v %% of /headers by 2s", tc.percent))
		gone, reason := DelaysNone(d, appb(), "/ip", "/headers")
		answers(t, name+", gone", gone, reason, fmt.Sprintf("delays %v %% of /headers by 2s", tc.percent))
		none, reason := DelaysNothing(d)
		answers(t, name+", none", none, reason, "delays")
	}
	// A delay of no request is none, and neither is a negative share.
	for _, numerator := range []string{"0", "-1", `""`, "null"} {
		d := dumpOf(t, managed(delayed(`{"path":"/headers"}`, `{"numerator":`+numerator+`}`, "2s")), nil, nil)
		gone, reason := DelaysNone(d, appb(), "/headers")
		answers(t, "gone: "+numerator, gone, reason, "")
		none, reason := DelaysNothing(d)
		answers(t, "none: "+numerator, none, reason, "")
	}
	d := dumpOf(t, managed(delayed(`{"path":"/headers"}`, `{"numerator":50}`, "soon")), nil, nil)
	held, reason := Delays(d, appb(), fault(50, 2*time.Second, "/headers"))
	answers(t, "a length that is not one", held, reason, "by 0s")
}

func TestPathsOfADelay(t *testing.T) {
	exact, prefix := fault(50, 2*time.Second, "/headers"), params.DefaultFault()
	for name, tc := range map[string]struct{ match, exact, prefix string }{
		"one path":              {`{"path":"/headers"}`, "", "/headers/x"},
		"another path":          {`{"path":"/ip"}`, "does not delay /headers", "does not delay /headers"},
		"the path and below it": {`{"path_separated_prefix":"/headers"}`, "/headers/x", ""},
		"below a longer path": {
			`{"path_separated_prefix":"/headers/x"}`, "does not delay /headers",
			"does not delay /headers",
		},
		"a longer name": {
			`{"path_separated_prefix":"/head"}`, "does not delay /headers",
			"does not delay /headers",
		},
		"whatever begins so": {`{"prefix":"/head"}`, "/headers/x", ""},
		"every path":         {`{"prefix":"/"}`, "/headers/x", ""},
		"an expression": {
			`{"safe_regex":{"regex":"/headers"}}`, "does not delay /headers",
			"does not delay /headers",
		},
		"nothing said of paths": {`{}`, "does not delay /headers", "does not delay /headers"},
	} {
		d := dumpOf(t, managed(delayed(tc.match, `{"numerator":50}`, "2s")), nil, nil)
		held, reason := Delays(d, appb(), exact)
		answers(t, name+", exact", held, reason, tc.exact)
		held, reason = Delays(d, appb(), prefix)
		answers(t, name+", prefix", held, reason, tc.prefix)
	}
	// The first route that takes a path decides.
	first := strings.Replace(delayed(`{"path":"/headers"}`, `{"numerator":50}`, "2s"), `"routes":[`,
		`"routes":[{"match":{"prefix":"/h"}},`, 1)
	held, reason := Delays(dumpOf(t, managed(first), nil, nil), appb(), exact)
	answers(t, "a route before it", held, reason, "does not delay /headers")
}

// Routes that a manager names are those of that name; one that names none has none.
func TestRoutesOfAManager(t *testing.T) {
	routes := func(name string) string {
		inline := delayed(`{"path":"/headers"}`, `{"numerator":50}`, "2s")
		return fmt.Sprintf(`{"name":%q,%s`, name,
			strings.TrimSuffix(strings.TrimPrefix(inline, `{"route_config":{`), "}"))
	}
	for name, tc := range map[string]struct{ manager, routes, want string }{
		"of its name":      {`{"rds":{"route_config_name":"r"}}`, routes("r"), ""},
		"of another name":  {`{"rds":{"route_config_name":"r"}}`, routes("q"), "does not delay"},
		"without any name": {`{}`, routes(""), "does not delay"},
	} {
		d := dumpOf(t, managed(tc.manager), []string{tc.routes}, nil)
		held, reason := Delays(d, appb(), fault(50, 2*time.Second, "/headers"))
		answers(t, name, held, reason, tc.want)
		none, reason := DelaysNothing(d)
		answers(t, name+", none", none, reason, "delays")
	}
}

// rbac is a connection manager with one filter of the given action and rules.
func rbac(action string, rules ...string) string {
	return fmt.Sprintf(`{"http_filters":[{"name":%q,"typed_config":{"rules":{"action":%q,"policies":{%s}}}}]}`,
		rbacFilter, action, strings.Join(rules, ","))
}

// rule is a rule of a policy for appa, with its permissions.
func rule(policy, permissions string) string {
	return fmt.Sprintf(`"ns[default]-policy[%s]-rule[0]":{"principals":[{"authenticated":{"principal_name":
		{"exact":"spiffe://a"}}}],"permissions":[%s]}`, policy, permissions)
}

func TestAuthzCountsAllowRules(t *testing.T) {
	const get = `{"header":{"name":":method","string_match":{"exact":"GET"}}}`
	own, other := rule("appb-get-only", get), rule("another", get)
	longer := rule("appb-get-only-2", get)
	for name, tc := range map[string]struct{ manager, held, gone, alone string }{
		"the action is written":     {rbac("ALLOW", own), "", "still enforces", ""},
		"the action is not written": {rbac("", own), "", "still enforces", ""},
		"a policy that denies":      {rbac("DENY", own), "does not enforce", "", ""},
		"another policy too": {
			rbac("", own, other), "", "still enforces",
			"ns[default]-policy[another]-rule[0]",
		},
		"only another policy":       {rbac("", other), "does not enforce", "", "ns[default]-policy[another]-rule[0]"},
		"a policy of a longer name": {rbac("", own, longer), "", "still enforces", "appb-get-only-2"},
		"another that denies":       {rbac("DENY", other), "does not enforce", "", ""},
		"no filter":                 {filters(faultFilter), "does not enforce", "", ""},
	} {
		d := dumpOf(t, managed(tc.manager), nil, nil)
		held, reason := Enforces(d, appb(), authz([]string{"GET"}, "a"))
		answers(t, name+", held", held, reason, tc.held)
		gone, reason := DoesNotEnforce(d, appb(), "default", "appb-get-only")
		answers(t, name+", gone", gone, reason, tc.gone)
		alone, reason := EnforcesNoOther(d, appb(), "default", "appb-get-only")
		answers(t, name+", alone", alone, reason, tc.alone)
	}
	none := dumpOf(t, nil, nil, nil)
	held, reason := Enforces(none, appb(), authz([]string{"GET"}, "a"))
	answers(t, "no listeners, held", held, reason, "no listeners")
	alone, reason := EnforcesNoOther(none, appb(), "default", "appb-get-only")
	answers(t, "no listeners, alone", alone, reason, "no listeners")
	gone, reason := DoesNotEnforce(none, appb(), "default", "appb-get-only")
	answers(t, "no listeners, gone", gone, reason, "")
}

func TestMethodsOfAPolicy(t *testing.T) {
	for name, tc := range map[string]struct{ permissions, want string }{
		"GET": {`{"header":{"name":":method","string_match":{"exact":"GET"}}}`, ""},
		"twice": {
			`{"header":{"name":":method","string_match":{"exact":"GET"}}},{"header":{"name":":method",` +
				`"string_match":{"exact":"GET"}}}`, "",
		},
		"POST":             {`{"header":{"name":":method","string_match":{"exact":"POST"}}}`, "POST"},
		"no exact method":  {`{"header":{"name":":method","string_match":{"prefix":"G"}}}`, `"prefix":"G"`},
		"another header":   {`{"header":{"name":":path","string_match":{"exact":"GET"}}}`, "methods"},
		"all but a method": {`{"not_rule":{"header":{"name":":method","string_match":{"exact":"GET"}}}}`, "methods"},
		"any":              {`{"any":true}`, "any"},
		"not any":          {`{"any":false}`, "methods"},
	} {
		d := dumpOf(t, managed(rbac("", rule("appb-get-only", tc.permissions))), nil, nil)
		held, reason := Enforces(d, appb(), authz([]string{"GET"}, "a"))
		answers(t, name, held, reason, tc.want)
	}
}

func TestDenialComesBeforeTheDelay(t *testing.T) {
	const router = "envoy.filters.http.router"
	for name, tc := range map[string]struct {
		filters []string
		want    string
	}{
		"denial first":              {[]string{rbacFilter, faultFilter, router}, ""},
		"denial, something, delay":  {[]string{router, rbacFilter, router, faultFilter}, ""},
		"delay first":               {[]string{faultFilter, rbacFilter}, "before"},
		"the first denial counts":   {[]string{rbacFilter, faultFilter, rbacFilter}, ""},
		"a delay between, then one": {[]string{router, faultFilter, rbacFilter, router}, "before"},
		"no delay":                  {[]string{rbacFilter, router}, "no filter " + faultFilter},
		"no denial":                 {[]string{faultFilter, router}, "no filter " + rbacFilter},
		"neither":                   {[]string{router}, "no filter " + rbacFilter},
	} {
		held, reason := AuthzBeforeFault(dumpOf(t, managed(filters(tc.filters...)), nil, nil), appb())
		answers(t, name, held, reason, tc.want)
	}
	held, reason := AuthzBeforeFault(dumpOf(t, nil, nil, nil), appb())
	answers(t, "no listeners", held, reason, "no listeners")
}
