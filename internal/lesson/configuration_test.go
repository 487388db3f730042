package lesson_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
)

// recorded is the configuration in the golden files, with some text replaced in each Gateway's.
type recorded struct {
	t       *testing.T
	replace map[probe.Source][]string
	none    probe.Source // a Gateway that has no pod
}

func (r recorded) Dump(_ context.Context, source probe.Source) (*mesh.Dump, error) {
	if source == r.none {
		return nil, errors.New("there is no pod")
	}
	read := func(kind string) []json.RawMessage {
		text, err := os.ReadFile(filepath.Join("..", "..", "testdata", "embedded", string(source)+"-"+kind+".json"))
		if err != nil {
			r.t.Fatal(err)
		}
		var resources []json.RawMessage
		if err := json.Unmarshal([]byte(strings.NewReplacer(r.replace[source]...).Replace(string(text))),
			&resources); err != nil {
			r.t.Fatal(err)
		}
		return resources
	}
	var routes []json.RawMessage
	if source == probe.GatewayProxy {
		routes = read("routes")
	}
	return mesh.DumpOf(read("listeners"), routes, read("endpoints"))
}

func (r recorded) WaypointAddresses(context.Context) ([]string, error) {
	return []string{"POD-IP"}, nil
}

func (r recorded) Objects(context.Context) (*mesh.Objects, error) {
	return &mesh.Objects{Target: mesh.Target{
		Service:  mesh.Service{Namespace: "default", Name: names.AppB, Port: names.AppPort},
		Waypoint: names.Waypoint, Gateway: names.Gateway,
	}}, nil
}

// TestConfigurationClaims changes recorded configuration in many ways: exactly the claims that are then wrong must be
// refuted.
func TestConfigurationClaims(t *testing.T) {
	const (
		faults   = "fault-appa fault-gateway fault-prefix"
		denials  = "authz-post-appa authz-post-gateway authz-outsider"
		policies = "authz-get-appa authz-get-gateway " + denials
	)
	for _, c := range []struct {
		name                string
		replace             []string // in the waypoint's configuration
		inGateway           []string // in the gateway's
		lessons             probe.Lessons
		refuted             string
		leftOut             string
		noWaypoint, noProof bool
	}{
		{name: "as claimed", leftOut: "reach-appa direct-open unmeshed-open"},
		{name: "another share", replace: []string{`"numerator": 500000`, `"numerator": 300000`}, refuted: faults},
		{
			name: "a share of a millionth less", replace: []string{`"numerator": 500000`, `"numerator": 499999`},
			refuted: faults,
		},
		{name: "another delay", replace: []string{`"fixedDelay": "2s"`, `"fixedDelay": "1s"`}, refuted: faults},
		{name: "another path", replace: []string{`"prefix": "/headers"`, `"prefix": "/ip"`}, refuted: faults},
		{name: "an exact path", replace: []string{`"prefix": "/headers"`, `"path": "/headers"`}, refuted: faults},
		{name: "one caller more", replace: []string{"/sa/gateway-istio\"", "/sa/another\""}, refuted: policies},
		{name: "another policy that allows everything", replace: []string{
			`"ns[default]-policy[appb-get-only]-rule[0]": {`,
			`"ns[default]-policy[another]-rule[0]": {"permissions": [{"any": true}], "principals": [{"any": true}]}, ` +
				`"ns[default]-policy[appb-get-only]-rule[0]": {`,
		}, refuted: denials},
		{name: "another method", replace: []string{`"exact": "GET"`, `"exact": "POST"`}, refuted: policies},
		{name: "no policy", replace: []string{"policy[appb-get-only]", "policy[another]"}, refuted: policies},
		{
			name:    "appb not behind it",
			replace: []string{"inbound-vip|8000|http|appb.default", "inbound-vip|8000|http|appc.default"},
			refuted: "waypoint-appa waypoint-gateway " + faults + " " + policies,
		},
		{
			name:    "appa behind it",
			replace: []string{"inbound-vip|8000|http|appb.default", "inbound-vip|8000|http|appa.default"},
			refuted: "waypoint-appa waypoint-gateway waypoint-appb-only " + faults + " " + policies,
		},
		{
			name: "the gateway goes around it", inGateway: []string{`"waypoint":`, `"another":`},
			refuted: "waypoint-gateway",
		},
		{
			name:      "the gateway goes to another waypoint",
			inGateway: []string{`"waypoint": "POD-IP:15008"`, `"waypoint": "10.0.0.9:15008"`},
			refuted:   "waypoint-gateway",
		},
		{
			name: "the gateway has no route", inGateway: []string{"appb.opssec.in", "appc.opssec.in"},
			refuted: "reach-gateway",
		},
		{
			name: "the gateway has another route", inGateway: []string{"appb.opssec.in", "appa.opssec.in"},
			refuted: "reach-gateway gateway-other-host",
		},
		{name: "no pod", noWaypoint: true, noProof: true},
		{
			name: "what was turned off is still there", lessons: lesson.States(lesson.Apps(), lesson.Waypoint()),
			refuted: "fault-off-appa fault-off-gateway authz-off-post authz-off-outsider",
		},
		{
			name:    "the whole lesson off",
			lessons: lesson.States(lesson.Apps()),
			refuted: "waypoint-off-gateway",
			leftOut: "reach-appa waypoint-off fault-off-appa authz-off-post authz-off-outsider direct-open " +
				"unmeshed-open",
		},
		{
			name: "the strict policies missing", lessons: lesson.States(lesson.Apps(), lesson.Waypoint(),
				lesson.Fault(params.DefaultFault()), lesson.Authz("", true)),
			refuted: "direct-closed unmeshed-closed",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			lessons := c.lessons
			if lessons == nil {
				lessons = lesson.States(lesson.Course()...)
			}
			configuration := recorded{
				t:       t,
				replace: map[probe.Source][]string{probe.WaypointProxy: c.replace, probe.GatewayProxy: c.inGateway},
			}
			if c.noWaypoint {
				configuration.none = probe.WaypointProxy
			}
			report, err := probe.Run(t.Context(),
				probe.Env{
					Namespace: "default", Lessons: lessons, Claims: lesson.Claims(),
					Configuration: configuration,
				})
			if err != nil {
				t.Fatal(err)
			}
			var refuted []string
			for _, result := range report.Claims {
				if result.Verdict == probe.Refuted {
					refuted = append(refuted, result.ID)
				}
			}
			if got := strings.Join(refuted, " "); got != c.refuted {
				t.Errorf("refuted %q, not %q", got, c.refuted)
			}
			if inconclusive := report.Count(probe.Inconclusive) > 0; inconclusive != c.noProof {
				t.Errorf("inconclusive: %v", inconclusive)
			}
			if got := strings.Join(report.LeftOut, " "); c.leftOut != "" && got != c.leftOut {
				t.Errorf("left out %q, not %q", got, c.leftOut)
			}
			if report.Evidence != probe.OnConfiguration ||
				!slices.ContainsFunc(report.Facts, func(f probe.Fact) bool { return f.Name == "evidence" }) {
				t.Error("the report does not say what its verdicts rest on")
			}
		})
	}
}
