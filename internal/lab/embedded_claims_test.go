package lab

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"

	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
)

// recorded reads the golden files as a proxy's configuration, with some text replaced.
func recorded(t *testing.T, gateway string, replace ...string) *mesh.Dump {
	t.Helper()
	read := func(kind string) []json.RawMessage {
		path := filepath.Join("..", "..", "testdata", "embedded", gateway+"-"+kind+".json")
		var resources []json.RawMessage
		if err := json.Unmarshal([]byte(strings.NewReplacer(replace...).Replace(read(t, path))), &resources); err != nil {
			t.Fatal(err)
		}
		return resources
	}
	var routes []json.RawMessage
	if gateway == names.Gateway {
		routes = read("routes")
	}
	dump, err := mesh.DumpOf(read("listeners"), routes, read("endpoints"))
	if err != nil {
		t.Fatal(err)
	}
	return dump
}

// TestConfigurationClaims sabotages recorded configuration in many ways: exactly the claims that are then wrong must be
// refuted.
func TestConfigurationClaims(t *testing.T) {
	l := &Lab{Settings: Settings{Namespace: "default"}}
	fault := params.DefaultFault()
	lessons := Lessons{Apps: true, Waypoint: true, Fault: &fault, Authz: &params.Authz{Allowed: []string{names.AppA, names.GatewayAccount}}}
	for _, c := range []struct {
		name                string
		replace             []string // in the waypoint's configuration
		inGateway           []string // in the gateway's
		lessons             func(*Lessons)
		refuted             string
		noWaypoint, noProof bool
	}{
		{name: "as it should be"},
		{name: "another share", replace: []string{`"numerator": 500000`, `"numerator": 300000`}, refuted: "config-fault"},
		{name: "another delay", replace: []string{`"fixedDelay": "2s"`, `"fixedDelay": "1s"`}, refuted: "config-fault"},
		{name: "another path", replace: []string{`"prefix": "/headers"`, `"prefix": "/ip"`}, refuted: "config-fault"},
		{name: "one caller more", replace: []string{"/sa/gateway-istio\"", "/sa/somebody\""}, refuted: "config-authz"},
		{name: "another policy that lets anybody in", replace: []string{
			`"ns[default]-policy[appb-get-only]-rule[0]": {`,
			`"ns[default]-policy[another]-rule[0]": {"permissions": [{"any": true}], "principals": [{"any": true}]}, "ns[default]-policy[appb-get-only]-rule[0]": {`,
		}, refuted: "config-authz"},
		{name: "another method", replace: []string{`"exact": "GET"`, `"exact": "POST"`}, refuted: "config-authz"},
		{name: "no policy", replace: []string{"policy[appb-get-only]", "policy[another]"}, refuted: "config-authz"},
		{name: "appb not behind it", replace: []string{"inbound-vip|8000|http|appb.default", "inbound-vip|8000|http|appc.default"}, refuted: "config-waypoint config-fault config-authz"},
		{name: "appa behind it", replace: []string{"inbound-vip|8000|http|appb.default", "inbound-vip|8000|http|appa.default"}, refuted: "config-waypoint config-appa-untouched config-fault config-authz"},
		{name: "the gateway walks around it", inGateway: []string{`"waypoint":`, `"another":`}, refuted: "config-waypoint"},
		{name: "the gateway goes to another waypoint", inGateway: []string{`"waypoint": "POD-IP:15008"`, `"waypoint": "10.0.0.9:15008"`}, refuted: "config-waypoint"},
		{name: "the gateway has no route", inGateway: []string{"appb.opssec.in", "appc.opssec.in"}, refuted: "config-route"},
		{name: "no pod", noWaypoint: true, noProof: true},
		{name: "what was turned off is still there", lessons: func(l *Lessons) { l.Fault, l.Authz = nil, nil }, refuted: "config-fault-off config-authz-off"},
		{name: "the whole lesson off", lessons: func(l *Lessons) { l.Fault, l.Authz, l.Waypoint = nil, nil, false }, refuted: "config-waypoint-off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			known := map[string]configuration{
				names.Gateway:  {dump: recorded(t, names.Gateway, c.inGateway...)},
				names.Waypoint: {dump: recorded(t, names.Waypoint, c.replace...)},
			}
			if c.noWaypoint {
				known[names.Waypoint] = configuration{why: "there is none"}
			}
			asked := lessons
			if c.lessons != nil {
				c.lessons(&asked)
			}
			var refuted []string
			inconclusive := false
			for _, claim := range l.configurationClaims(asked, []string{"POD-IP"}) {
				if !claim.on(asked) {
					continue
				}
				result := claim.judge(known, func() time.Time { return time.Time{} })
				if result.Verdict == probe.Refuted {
					refuted = append(refuted, result.ID)
				}
				inconclusive = inconclusive || result.Verdict == probe.Inconclusive
			}
			if got := strings.Join(refuted, " "); got != c.refuted {
				t.Errorf("refuted %q, not %q", got, c.refuted)
			}
			if inconclusive != c.noProof {
				t.Errorf("inconclusive: %v", inconclusive)
			}
		})
	}
}
