package lesson

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	networkingapi "istio.io/api/networking/v1alpha3"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"ambientlab/internal/lesson/params"
	"ambientlab/internal/mesh"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/specs"
)

// on is what is found where some lessons are on.
func on(names ...string) session.Found {
	found := session.Found{Lessons: map[string]json.RawMessage{}}
	for _, name := range names {
		found.Lessons[name] = json.RawMessage(`{}`)
	}
	return found
}

// Every lesson is complete, comes after those that it needs, and has its specs in the folder of its name.
func TestLessonsAreComplete(t *testing.T) {
	var before []string
	for _, l := range All() {
		if l.Name == "" || l.Parameters == nil || l.Plan == nil || l.Data == nil || l.On == "" || l.Off == "" ||
			l.Next == nil || l.NextOff == "" {
			t.Errorf("lesson %q lacks something: %+v", l.Name, l)
		}
		if l.Invalid != nil {
			t.Errorf("lesson %s with its default parameters: %v", l.Name, l.Invalid)
		}
		for _, need := range l.Needs {
			needed, _ := Named(need)
			if !slices.Contains(before, need) || needed.Missing == nil {
				t.Errorf("lesson %s needs %s, which does not come before it, or does not say what is missing", l.Name,
					need)
			}
			for _, deeper := range needed.Needs {
				if !slices.Contains(l.Needs, deeper) {
					t.Errorf("lesson %s needs %s, and so %s, which it does not list", l.Name, need, deeper)
				}
			}
		}
		before = append(before, l.Name)
		files, err := specs.OfLesson(l.Name)
		if err != nil || (len(files) == 0) != (l.Name == "telemetry") { // which applies its record alone
			t.Errorf("lesson %s has specs %v, %v", l.Name, files, err)
		}
		objects, err := l.Objects(session.Config{Namespace: "default"})
		if err != nil || len(objects) < 2 && len(files) > 0 {
			t.Errorf("lesson %s has objects %v, %v", l.Name, objects, err)
		}
	}
}

// Turning a lesson off goes by the parameters with which it was turned on.
func TestAsRecorded(t *testing.T) {
	found := on("apps")
	found.Lessons["fault"] = json.RawMessage(`{"percent": 30, "delayNanoseconds": 1000000000, "path": "/ip"}`)
	l, isOn, err := Fault(params.DefaultFault()).AsRecorded(found)
	if err != nil || !isOn || l.Parameters != (params.Fault{Percent: 30, Delay: time.Second, Path: "/ip"}) ||
		!strings.Contains(l.On, "30 % of /ip") {
		t.Errorf("got %+v, %v, %v", l.Parameters, isOn, err)
	}
	found.Lessons["authz"] = json.RawMessage(`{"allowed": ["gateway-istio"], "strict": true}`)
	l, isOn, err = Authz("", false).AsRecorded(found)
	if err != nil || !isOn || l.On != "GET by gateway-istio; only the waypoint reaches the pod" {
		t.Errorf("got %q, %v, %v", l.On, isOn, err)
	}
	if _, isOn, err := Waypoint().AsRecorded(found); isOn || err != nil {
		t.Errorf("the waypoint is on: %v, %v", isOn, err)
	}
	if _, isOn, err := Apps().AsRecorded(found); !isOn || err != nil {
		t.Errorf("the applications are off: %v, %v", isOn, err)
	}
	found.Lessons["fault"] = json.RawMessage(`none`)
	if _, _, err := Fault(params.DefaultFault()).AsRecorded(found); !problem.Is(err, problem.Internal) {
		t.Errorf("a record that cannot be read: %v", err)
	}
}

func TestNextTarget(t *testing.T) {
	for _, tc := range []struct {
		found session.Found
		want  string
	}{
		{on(), "mage sm:apps"},
		{on("apps"), "mage sm:waypoint"},
		{on("apps", "waypoint", "authz"), "mage sm:fault"},
		{on("apps", "waypoint", "fault", "authz"), "mage sm:authz -off turns"},
	} {
		if got := NextTarget(tc.found); !strings.HasPrefix(got, tc.want) {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

func TestDescriptionOfAuthz(t *testing.T) {
	for _, tc := range []struct {
		without string
		strict  bool
		want    string
	}{
		{"", false, "GET by appa and gateway-istio; the pod can be reached around the waypoint"},
		{"appa", true, "GET by gateway-istio; only the waypoint reaches the pod"},
		{"appa,gateway-istio", true, "no caller may ask appb; only the waypoint reaches the pod"},
	} {
		if got := Authz(tc.without, tc.strict).On; got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
}

func TestInvalidParameters(t *testing.T) {
	for _, l := range []Lesson{Fault(params.Fault{}), Authz("appb", false)} {
		if !problem.Is(l.Invalid, problem.SettingInvalid) {
			t.Errorf("%s: %v", l.Name, l.Invalid)
		}
	}
}

func TestTurningOnInOrder(t *testing.T) {
	none, apps, waypoint := on(), on("apps"), on("apps", "waypoint")
	for _, tc := range []struct {
		lesson string
		found  session.Found
		lost   bool // the waypoint's Gateway does not exist
		want   problem.Kind
		advice string
	}{
		{lesson: "apps", found: none},
		{lesson: "waypoint", found: apps},
		{lesson: "fault", found: waypoint},
		{lesson: "authz", found: waypoint},
		{lesson: "waypoint", found: none, want: problem.ObjectMissing, advice: "mage sm:apps"},
		{lesson: "fault", found: none, want: problem.ObjectMissing, advice: "mage sm:apps"},
		{lesson: "fault", found: apps, want: problem.WaypointOff, advice: "mage sm:waypoint"},
		{lesson: "authz", found: apps, want: problem.WaypointOff, advice: "mage sm:waypoint"},
		{lesson: "authz", found: waypoint, lost: true, want: problem.WaypointOff, advice: "mage sm:waypoint"},
	} {
		l, _ := Named(tc.lesson)
		err := l.mayTurnOn(tc.found, func(needed Lesson) (*problem.Problem, error) {
			if tc.lost {
				return needed.Missing(tc.lesson), nil
			}
			return nil, nil
		})
		if tc.want.ID == "" {
			if err != nil {
				t.Errorf("%s on %v: %v", tc.lesson, tc.found.Lessons, err)
			}
			continue
		}
		var seen *problem.Problem
		if !errors.As(err, &seen) || seen.ID != tc.want.ID ||
			!strings.Contains(strings.Join(seen.Advice, "\n"), tc.advice) {
			t.Errorf("%s on %v gives %v, want %s with the advice %s", tc.lesson, tc.found.Lessons, err, tc.want.ID,
				tc.advice)
		}
	}
	broken := errors.New("no answer")
	fault, _ := Named("fault")
	if err := fault.mayTurnOn(waypoint, func(Lesson) (*problem.Problem, error) { return nil, broken }); !errors.Is(err,
		broken) {
		t.Errorf("got %v", err)
	}
}

func TestTurningOffInOrder(t *testing.T) {
	all := on("apps", "waypoint", "fault", "authz")
	for _, tc := range []struct {
		lesson string
		found  session.Found
		advice []string // nil: it may be turned off
	}{
		{"fault", all, nil},
		{"authz", all, nil},
		{"waypoint", on("apps", "waypoint"), nil},
		{"apps", on("apps"), nil},
		// A lesson that is off may be turned off again, whatever is on.
		{"apps", on(), nil},
		{"waypoint", on("apps", "authz"), nil},
		{"waypoint", all, []string{"mage sm:authz -off", "mage sm:fault -off", "mage sm:waypoint -off"}},
		{"waypoint", on("apps", "waypoint", "fault"), []string{"mage sm:fault -off", "mage sm:waypoint -off"}},
		{"apps", all, []string{
			"mage sm:authz -off", "mage sm:fault -off", "mage sm:waypoint -off",
			"mage sm:apps -off",
		}},
	} {
		l, _ := Named(tc.lesson)
		err := l.MayTurnOff(tc.found)
		if tc.advice == nil {
			if err != nil {
				t.Errorf("%s from %v: %v", tc.lesson, tc.found.Lessons, err)
			}
			continue
		}
		var seen *problem.Problem
		if !errors.As(err, &seen) || seen.ID != problem.LessonNeeded.ID || len(seen.Advice) != len(tc.advice) {
			t.Errorf("%s from %v gives %v", tc.lesson, tc.found.Lessons, err)
			continue
		}
		if !slices.EqualFunc(seen.Advice, tc.advice, strings.Contains) {
			t.Errorf("%s from %v advises %q, want %q", tc.lesson, tc.found.Lessons, seen.Advice, tc.advice)
		}
	}
}

// A lesson that is off finds the objects that keep its effect, and no others.
func TestRemaining(t *testing.T) {
	target := mesh.Target{Service: mesh.Service{Namespace: "default", Name: "appb", Port: 8000}}
	kind := gatewayv1.Kind("Service")
	route := func(name, service string) *gatewayv1.HTTPRoute {
		return &gatewayv1.HTTPRoute{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: gatewayv1.HTTPRouteSpec{CommonRouteSpec: gatewayv1.CommonRouteSpec{
				ParentRefs: []gatewayv1.ParentReference{{Kind: &kind, Name: gatewayv1.ObjectName(service)}},
			}},
		}
	}
	virtual := func(name, host string, fault *networkingapi.HTTPFaultInjection) *networkingv1.VirtualService {
		v := &networkingv1.VirtualService{ObjectMeta: metav1.ObjectMeta{Name: name}}
		v.Spec.Hosts = []string{host}
		v.Spec.Http = []*networkingapi.HTTPRoute{{Fault: fault}}
		return v
	}
	delay := &networkingapi.HTTPFaultInjection{Delay: &networkingapi.HTTPFaultInjection_Delay{}}
	policy := func(name string) *securityv1.AuthorizationPolicy {
		return &securityv1.AuthorizationPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
	}
	objects := &mesh.Objects{
		Target: target,
		Routes: []*gatewayv1.HTTPRoute{route("mine", "appb"), route("other", "appa")},
		VirtualServices: []*networkingv1.VirtualService{
			virtual("slow", "appb", delay), virtual("plain", "appb", nil), virtual("another", "appa", delay),
		},
		Policies: []*securityv1.AuthorizationPolicy{policy("appb-l4"), policy("appb-get-only"), policy("mine")},
	}
	for name, want := range map[string]string{
		"split": "httproute mine", "l4": "authorizationpolicy appb-l4", "authz": "authorizationpolicy appb-get-only",
		"fault": "virtualservice slow",
	} {
		l, _ := Named(name)
		if got := strings.Join(l.Remaining(objects), ", "); got != want {
			t.Errorf("of lesson %s remain %s, want %s", name, got, want)
		}
		if got := l.Remaining(&mesh.Objects{Target: target}); len(got) > 0 {
			t.Errorf("of lesson %s nothing is left, and yet %s", name, got)
		}
	}
}
