package probe_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	istiometa "istio.io/api/meta/v1alpha1"
	networkingapi "istio.io/api/networking/v1alpha3"
	securityapi "istio.io/api/security/v1beta1"
	istiotype "istio.io/api/type/v1beta1"
	networkingv1 "istio.io/client-go/pkg/apis/networking/v1"
	securityv1 "istio.io/client-go/pkg/apis/security/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/mesh"
	. "ambientlab/internal/probe"
	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/traffic"
)

// inForce says which lessons are on.
type inForce struct {
	Waypoint bool
	Fault    *params.Fault
	Authz    *params.Authz
}

// claimed gives the lessons as sm:verify finds them.
func (f inForce) claimed() Lessons {
	on := []lesson.Lesson{lesson.Apps()}
	if f.Waypoint {
		on = append(on, lesson.Waypoint())
	}
	if f.Fault != nil {
		on = append(on, lesson.Fault(*f.Fault))
	}
	if f.Authz != nil {
		on = append(on, lesson.Authz(strings.Join(f.Authz.Without(), ","), f.Authz.Strict))
	}
	return lesson.States(on...)
}

// sim is a lab in memory that behaves as ambient does, with the ways in which it goes wrong as switches.
type sim struct {
	actual inForce // what is really in force, as opposed to what is claimed

	appaOutOfMesh bool // appa's pod with dataplane-mode none
	noIngress     bool // Service appb without ingress-use-waypoint
	scaledToZero  bool // no waypoint pod: traffic goes around (it fails open)
	selector      bool // the policy written with selector: the waypoint ignores it
	deniedEarly   bool // the requests are denied by something that does not count

	foreign       []int // requests of another client during the nth batch
	hideCounters  bool  // a stock proxy: no request counters
	hidePrincipal bool  // a log format without the principal
	wrongSeen     string
	retried       bool   // one request of each batch is sent twice
	lost          bool   // the exit status of the callers' command is lost
	restartAfter  string // name of a pod that is restarted with each batch, restarts times
	restarts      int
	noise         time.Duration // how slow undelayed requests are
	ownStatus     int           // what appb answers on the delayed path, 200 when 0
	ownTime       time.Duration // how long appb takes on the delayed path
	hideDetails   bool          // a log format without the details of the response
	plainMatch    bool          // the waypoint matches the delayed path exactly, whatever was asked for
	hiccups       int           // how many undelayed requests of a batch are slow all the same
	counterErr    error
	objectsErr    error
	closeErr      error
	body          string
	unsent        error
	cancel        context.CancelFunc // called during the first batch

	busy    sync.Mutex // for what follows: claims are measured side by side
	objects *mesh.Objects
	randoms map[string]*rand.Rand // by caller and request, so that a claim draws the same with any others
	batches int
	closed  bool
	counts  observe.Counters
	log     []observe.Crossing

	mutex     sync.Mutex // for the log and those who follow it
	followers []func(observe.Crossing)

	now time.Time
}

func newSim(l inForce) *sim {
	actual := l
	if l.Fault != nil {
		fault := *l.Fault
		actual.Fault = &fault
	}
	if l.Authz != nil {
		authz := *l.Authz
		actual.Authz = &authz
	}
	return &sim{
		actual: actual, randoms: map[string]*rand.Rand{}, now: time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC),
		objects: goodObjects(l),
		counts: observe.Counters{
			Requests: observe.Counter{Value: 1000, Known: true}, Denied: observe.Counter{Value: 7, Known: true},
			Delayed: observe.Counter{Value: 3, Known: true},
		},
	}
}

func meta(name string, labels ...string) metav1.ObjectMeta {
	m := metav1.ObjectMeta{Name: name, Namespace: "default", Labels: map[string]string{}}
	for i := 0; i < len(labels); i += 2 {
		m.Labels[labels[i]] = labels[i+1]
	}
	return m
}

// goodObjects are the objects of a lab that is as claimed.
func goodObjects(l inForce) *mesh.Objects {
	one := int32(1)
	pod := corev1.Pod{ObjectMeta: meta("appa-1", "app", "appa")}
	pod.Annotations = map[string]string{"ambient.istio.io/redirection": "enabled"}
	o := &mesh.Objects{
		Target: mesh.Target{
			Service:  mesh.Service{Namespace: "default", Name: "appb", Port: 8000},
			Waypoint: "appb-waypoint", Gateway: "gateway",
		},
		Service: &corev1.Service{ObjectMeta: meta("appb")}, AppPods: map[string][]corev1.Pod{"appa": {pod}},
	}
	if l.Waypoint {
		o.Service.Labels = map[string]string{
			"istio.io/use-waypoint":         "appb-waypoint",
			"istio.io/ingress-use-waypoint": "true",
		}
		o.Service.Status.Conditions = []metav1.Condition{{Type: "istio.io/WaypointBound", Status: "True"}}
		o.Waypoint = &gatewayv1.Gateway{ObjectMeta: meta("appb-waypoint")}
		o.Waypoint.Status.Conditions = []metav1.Condition{{Type: "Programmed", Status: "True"}}
		o.WaypointDeployment = &appsv1.Deployment{
			ObjectMeta: meta("appb-waypoint"),
			Spec:       appsv1.DeploymentSpec{Replicas: &one},
		}
		o.WaypointDeployment.Status = appsv1.DeploymentStatus{Replicas: 1, UpdatedReplicas: 1, AvailableReplicas: 1}
	}
	if l.Authz != nil {
		o.Policies = []*securityv1.AuthorizationPolicy{policy("appb-get-only")}
		if l.Authz.Strict {
			strict := &securityv1.PeerAuthentication{ObjectMeta: meta("strict")}
			strict.Spec.Mtls = &securityapi.PeerAuthentication_MutualTLS{
				Mode: securityapi.PeerAuthentication_MutualTLS_STRICT,
			}
			o.PeerAuthentications = []*securityv1.PeerAuthentication{strict}
			only := &securityv1.AuthorizationPolicy{ObjectMeta: meta("appb-only-via-waypoint")}
			only.Status.Conditions = []*istiometa.IstioCondition{{Type: "ZtunnelAccepted", Status: "True"}}
			o.Policies = append(o.Policies, only)
		}
	}
	if l.Fault != nil {
		o.VirtualServices = []*networkingv1.VirtualService{virtualService(*l.Fault)}
	}
	return o
}

func policy(name string) *securityv1.AuthorizationPolicy {
	p := &securityv1.AuthorizationPolicy{ObjectMeta: meta(name)}
	p.Spec.TargetRefs = []*istiotype.PolicyTargetReference{{Kind: "Service", Name: "appb"}}
	p.Status.Conditions = []*istiometa.IstioCondition{{Type: "WaypointAccepted", Status: "True"}}
	return p
}

func virtualService(f params.Fault) *networkingv1.VirtualService {
	v := &networkingv1.VirtualService{ObjectMeta: meta("appb-delay")}
	v.Spec.Hosts = []string{"appb.default.svc.cluster.local"}
	uri := &networkingapi.StringMatch{MatchType: &networkingapi.StringMatch_Prefix{Prefix: f.Path}}
	if f.Exact {
		uri.MatchType = &networkingapi.StringMatch_Exact{Exact: f.Path}
	}
	v.Spec.Http = []*networkingapi.HTTPRoute{{
		Match: []*networkingapi.HTTPMatchRequest{{Uri: uri}},
		Fault: &networkingapi.HTTPFaultInjection{Delay: &networkingapi.HTTPFaultInjection_Delay{
			Percentage:    &networkingapi.Percent{Value: f.Percent},
			HttpDelayType: &networkingapi.HTTPFaultInjection_Delay_FixedDelay{FixedDelay: durationpb.New(f.Delay)},
		}},
	}}
	return v
}

// delayOf is the delay that a VirtualService asks for.
func delayOf(v *networkingv1.VirtualService) *networkingapi.HTTPFaultInjection_Delay {
	return v.Spec.Http[0].Fault.Delay
}

func (s *sim) env(claimed inForce) Env {
	n := 0
	return Env{
		Lab: "ambient", Namespace: "default", Lessons: claimed.claimed(), Claims: lesson.Claims(), World: s,
		Now: func() time.Time {
			s.busy.Lock()
			defer s.busy.Unlock()
			s.now = s.now.Add(time.Millisecond)
			return s.now
		},
		After: func(time.Duration) <-chan time.Time { return time.After(150 * time.Millisecond) },
		NewRun: func() string {
			s.busy.Lock()
			defer s.busy.Unlock()
			n++
			return fmt.Sprintf("run%04d", n)
		},
	}
}

type simCaller struct {
	*sim
	who Caller
}

func (s *sim) Caller(_ context.Context, who Caller) (traffic.Sender, error) {
	if s.unsent != nil {
		return nil, s.unsent
	}
	return simCaller{s, who}, nil
}

func (s *sim) crosses(who Caller) bool {
	switch {
	case !s.actual.Waypoint || s.scaledToZero:
		return false
	case who == Unmeshed || who == AppaDirect || (who == Appa && s.appaOutOfMesh) || (who == Gateway && s.noIngress):
		return false
	}
	return true
}

// random draws for the requests of a load.
func (c simCaller) random(l traffic.Load) *rand.Rand {
	key := fmt.Sprint(c.who, l.Method, l.Path)
	if c.randoms[key] == nil {
		seed := fnv.New64a()
		_, _ = seed.Write([]byte(key))
		c.randoms[key] = rand.New(rand.NewPCG(1, seed.Sum64()))
	}
	return c.randoms[key]
}

// answer is what becomes of one request. own is how long appb takes for it.
func (c simCaller) answer(l traffic.Load) (status int, delayed bool, own time.Duration, body string) {
	if l.Host != "" && l.Host != "appb.opssec.in" {
		return http.StatusNotFound, false, 0, ""
	}
	if c.actual.Authz != nil && c.actual.Authz.Strict && !c.crosses(c.who) {
		return traffic.NoAnswer, false, 0, ""
	}
	path := params.DefaultFault().Path
	if c.actual.Fault != nil {
		path = c.actual.Fault.Path
	}
	status = http.StatusOK
	switch l.Path {
	case path:
		status, own = cmp.Or(c.ownStatus, http.StatusOK), c.ownTime
	case path + "/x":
		status = http.StatusNotFound
	}
	if c.crosses(c.who) {
		enforced := c.actual.Authz != nil && !c.selector
		if enforced && (!c.actual.Authz.Allows(c.who.Account()) || l.Method != http.MethodGet) {
			return http.StatusForbidden, false, 0, traffic.DeniedBody
		}
		if f := c.actual.Fault; f != nil && (f.Covers(l.Path) && !c.plainMatch || l.Path == f.Path) &&
			c.random(l).Float64() < f.Share() {
			delayed = true
		}
	}
	return status, delayed, own, "{}"
}

func (c simCaller) Send(_ context.Context, l traffic.Load, each func(traffic.Reply)) (traffic.Batch, error) {
	c.busy.Lock()
	defer c.busy.Unlock()
	c.batches++
	if c.cancel != nil {
		c.cancel()
	}
	batch := traffic.Batch{Load: l, Pod: "p/u/0", Command: "curl " + l.Path}
	for i := range l.Count {
		status, delayed, own, _ := c.answer(l)
		latency := 3*time.Millisecond + time.Duration(c.random(l).IntN(4000))*time.Microsecond + c.noise + own
		if delayed {
			latency += c.actual.Fault.Delay
		} else if i < c.hiccups {
			latency += 1900 * time.Millisecond
		}
		r := traffic.Reply{At: c.now.Add(time.Duration(i) * 12 * time.Millisecond), Latency: latency, Status: status}
		batch.Replies = append(batch.Replies, r)
		if each != nil {
			each(r)
		}
		c.seen(l, status, delayed, own)
		if c.retried && i == 0 {
			c.seen(l, status, delayed, own)
		}
	}
	if c.batches <= len(c.foreign) {
		for range c.foreign[c.batches-1] {
			c.counts.Requests.Value++
			c.note(observe.Crossing{Agent: "curl/8", At: c.now.Add(time.Hour)})
		}
	}
	if c.lost {
		return batch, fmt.Errorf("fortio in appa: %w", traffic.ErrStatusLost)
	}
	return batch, nil
}

func (c simCaller) seen(l traffic.Load, status int, delayed bool, own time.Duration) {
	if !c.crosses(c.who) || l.Host != "" {
		return
	}
	principal := "spiffe://cluster.local/ns/default/sa/" + c.who.Account()
	if c.wrongSeen != "" {
		principal = c.wrongSeen
	}
	if c.hidePrincipal {
		principal = ""
	}
	c.counts.Requests.Value++
	if status == http.StatusForbidden && !c.deniedEarly {
		c.counts.Denied.Value++
	}
	if delayed {
		c.counts.Delayed.Value++
	}
	crossing := observe.Crossing{
		Run: l.Run, Agent: traffic.Agent(l.Run), Principal: principal, Status: status,
		At: c.now,
	}
	switch {
	case c.hideDetails:
	case status == http.StatusForbidden && own == 0 && !delayed && c.ownStatus != status:
		crossing.Details = "rbac_access_denied_matched_policy[none]"
	default:
		crossing.Details, crossing.Own, crossing.OwnKnown = observe.ViaUpstream, own, true
		if delayed {
			crossing.Flags = "DI"
		}
	}
	c.note(crossing)
}

// note writes a line into the waypoint's log.
func (s *sim) note(c observe.Crossing) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.log = append(s.log, c)
	for _, tell := range s.followers {
		tell(c)
	}
}

func (c simCaller) Once(_ context.Context, l traffic.Load) (traffic.Answer, error) {
	c.busy.Lock()
	defer c.busy.Unlock()
	if c.lost {
		return traffic.Answer{}, traffic.ErrStatusLost
	}
	status, _, own, body := c.answer(l)
	if c.sim.body != "" {
		body = c.sim.body
	}
	c.seen(l, status, false, own)
	return traffic.Answer{Reply: traffic.Reply{Status: status}, Body: body}, nil
}

func (s *sim) Counters(context.Context) (observe.Counters, error) {
	s.busy.Lock()
	defer s.busy.Unlock()
	c := s.counts
	if s.actual.Waypoint && !s.scaledToZero {
		c.Pods = []string{"appb-waypoint-1/u/0"}
	}
	if s.hideCounters {
		c.Requests, c.Denied, c.Delayed = observe.Counter{}, observe.Counter{}, observe.Counter{}
	}
	return c, s.counterErr
}

func (s *sim) Crossings(ctx context.Context, since time.Time, enough func(observe.Crossing) bool) error {
	s.mutex.Lock()
	for _, c := range s.log {
		if !c.At.Before(since) {
			enough(c)
		}
	}
	ended := false
	s.followers = append(s.followers, func(c observe.Crossing) {
		if !ended {
			enough(c)
		}
	})
	s.mutex.Unlock()
	<-ctx.Done()
	s.mutex.Lock()
	defer s.mutex.Unlock()
	ended = true
	return nil
}

func (s *sim) Incarnations(context.Context) ([]string, error) {
	s.busy.Lock()
	defer s.busy.Unlock()
	found := []string{"appa-1/u1/0", "appb-1/u2/0", "appb-waypoint-1/u3/0"}
	for i, l := range found {
		if PodOf(l) == s.restartAfter {
			found[i] = fmt.Sprint(l[:len(l)-1], min(s.batches, s.restarts))
		}
	}
	return found, nil
}

func (s *sim) Objects(context.Context) (*mesh.Objects, error) { return s.objects, s.objectsErr }

// Cluster is nil: no claim of these tests gathers more evidence.
func (s *sim) Cluster() traffic.Cluster { return nil }

func (s *sim) Close(context.Context) error {
	s.closed = true
	return s.closeErr
}

var errBroken = errors.New("broken")

// outOfMesh takes appa's pod out of the mesh.
func (s *sim) outOfMesh() {
	s.appaOutOfMesh = true
	s.objects.AppPods["appa"][0].Labels["istio.io/dataplane-mode"] = "none"
}
