package mesh

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"ambientlab/internal/problem"
)

func TestWaitWaypoint(t *testing.T) {
	no := map[string]func(*cluster){
		"Gateway default/appb-waypoint does not exist":        func(c *cluster) { c.gateway = nil },
		"its controller has not set condition Programmed yet": func(c *cluster) { delete(c.gateway.Object, "status") },
		"is not ready: Programmed is False: AddressNotAssigned: no instances found": func(c *cluster) {
			c.gateway = object("gateway.networking.k8s.io/v1", "Gateway", "appb-waypoint",
				withCondition("Programmed", "False", "AddressNotAssigned", "no instances found"))
		},
		"istiod has not made Deployment default/appb-waypoint yet": func(c *cluster) {
			c.deployment = nil
		},
		"scaled to zero: traffic goes around": func(c *cluster) {
			c.deployment.Spec.Replicas = new(int32)
		},
		"has not bound Service appb to a waypoint; its label istio.io/use-waypoint is": func(c *cluster) {
			c.service.Status.Conditions = nil
		},
		"not bound to a waypoint: NotFound: waypoint not found": func(c *cluster) {
			c.service.Status.Conditions[0] = metav1.Condition{
				Type: conditionBound, Status: "False", Reason: "NotFound",
				Message: "waypoint not found",
			}
		},
		"Deployment appb-waypoint is not available: 0 of 1 replicas are available: " +
			"pod waypoint-1 cannot get image proxyv2: ImagePullBackOff: x": func(c *cluster) {
			c.deployment.Status.AvailableReplicas = 0
			c.pods[0].Status = corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{
				{
					Name: "istio-proxy", Image: "proxyv2",
					State: corev1.ContainerState{
						Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff", Message: "x"},
					},
				},
			}}
		},
		"around the waypoint; Service appb lacks the label istio.io/ingress-use-waypoint=true": func(c *cluster) {
			c.proxies["gateway-1"].serve = nil
		},
		"LAB-ISTIOD-NOT-CONNECTED": func(c *cluster) {
			c.proxies["waypoint-1"].serve, c.proxies["waypoint-1"].disconnected = &Dump{}, true
		},
		"no connection to pod": func(c *cluster) {
			c.proxies["waypoint-1"].err = problem.New(problem.ProxyUnreachable, nil,
				"no connection to pod default/waypoint-1")
		},
	}
	for want, spoil := range no {
		t.Run(want, func(t *testing.T) {
			around := captured(t, "gateway-no-label")
			synctest.Test(t, func(t *testing.T) {
				c := readyCluster(t)
				spoil(c)
				if c.proxies["gateway-1"].serve == nil {
					c.proxies["gateway-1"].serve = around
				}
				err := c.mesh().Wait(within(t, 5*time.Second), WaypointOn(target()))
				if err == nil || !strings.Contains(err.Error(), want) || len(problem.All(err)) == 0 {
					t.Errorf("%v; want %q", err, want)
				}
				held, reason, err := c.mesh().Check(t.Context(), WaypointOn(target()))
				if held || reason == "" || err != nil {
					t.Errorf("one look gives %v, %q, %v", held, reason, err)
				}
			})
		})
	}
	synctest.Test(t, func(t *testing.T) {
		c := readyCluster(t)
		began := time.Now()
		if err := c.mesh().Wait(within(t, time.Minute), WaypointOn(target())); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("the first look is not immediate: %s", took)
		}
		for name, p := range c.proxies {
			if !p.closed {
				t.Errorf("the port-forward to %s is left open", name)
			}
		}
	})
}

// The gateway may have the waypoint's endpoints of before; a change of the Service makes istiod send them again.
func TestWaitNotifiesIstiodOfAReadyWaypoint(t *testing.T) {
	good := captured(t, "gateway")
	unready := dumpOf(t, nil, nil, []string{strings.ReplaceAll(endpointsOf("10.244.2.30:15008"), `"metadata"`,
		`"health_status":"UNHEALTHY","metadata"`)})
	gone := dumpOf(t, nil, nil, []string{endpointsOf("10.244.2.29:15008")})
	for name, tc := range map[string]struct {
		stale *Dump
		says  string
	}{
		"the endpoint counts as not ready": {unready, "not ready: 10.0.0.1:8080; but the pods of waypoint"},
		"the endpoint is a pod that is gone": {
			gone, "to a waypoint at 10.244.2.29:15008, which is none of 10.244.2.30",
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := readyCluster(t)
				c.service.ResourceVersion = "41"
				c.proxies["gateway-1"].serve = tc.stale
				m := c.mesh()
				held, reason, err := m.Check(t.Context(), WaypointOn(target()))
				if held || err != nil || !strings.Contains(reason, tc.says) {
					t.Errorf("one look gives %v, %q, %v", held, reason, err)
				}
				label := func() string {
					service, err := m.kube.CoreV1().Services("default").Get(t.Context(), "appb", metav1.GetOptions{})
					if err != nil {
						t.Fatal(err)
					}
					return service.Labels[notifiedLabel]
				}
				err = m.Wait(within(t, overlookedAfter-time.Second), WaypointOn(target()))
				if !problem.Is(err, problem.GatewayOverlooked) || label() != "" {
					t.Errorf("before istiod's time is up: %v, label %q", err, label())
				}
				time.AfterFunc(overlookedAfter+time.Second, func() {
					if label() != "41" {
						t.Errorf("label %q", label())
					}
					c.proxies["gateway-1"].set(good)
				})
				if err := m.Wait(within(t, time.Minute), WaypointOn(target())); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// The status of a Gateway that was deleted and created again may not count the new pods: a change of its Service makes
// istiod compute it again.
func TestWaitNotifiesIstiodOfAProgrammedWaypoint(t *testing.T) {
	unassigned := withCondition("Programmed", "False", "AddressNotAssigned", "no instances found")
	for name, tc := range map[string]struct {
		available int32
		want      string // the label
	}{
		"its pods are ready": {1, "7"},
		"it has no pod":      {0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := readyCluster(t)
				c.gateway = object("gateway.networking.k8s.io/v1", "Gateway", "appb-waypoint", unassigned)
				c.deployment.Status.AvailableReplicas = tc.available
				m := c.mesh()
				err := m.Wait(within(t, overlookedAfter+5*time.Second), WaypointOn(target()))
				if !problem.Is(err, problem.GatewayOverlooked) != (tc.want == "") {
					t.Error(err)
				}
				service, err := m.kube.CoreV1().Services("default").
					Get(t.Context(), "appb-waypoint", metav1.GetOptions{})
				if err != nil || service.Labels[notifiedLabel] != tc.want {
					t.Errorf("label %q, %v; want %q", service.Labels[notifiedLabel], err, tc.want)
				}
			})
		})
	}
}

func TestWaitReturnsWithinATickOfTheArrival(t *testing.T) {
	before, after := captured(t, "waypoint"), captured(t, "waypoint-fault")
	synctest.Test(t, func(t *testing.T) {
		c := readyCluster(t)
		proxy := c.proxies["waypoint-1"]
		proxy.serve = before
		const arrives = 1550 * time.Millisecond
		time.AfterFunc(arrives, func() { proxy.set(after) })
		began := time.Now()
		err := c.mesh().Wait(within(t, time.Minute),
			FaultOn(target(), "appb-delay", fault(50, 2*time.Second, "/headers")))
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took < arrives || took > arrives+lookEvery {
			t.Errorf("returned after %s", took)
		}
		proxy.set(before)
		if err := c.mesh().Wait(within(t, time.Minute),
			FaultOff(target(), fault(50, 2*time.Second, "/headers"))); err != nil {
			t.Error(err)
		}
	})
}

// What the configuration says is not yet so for connections that were open before: those that are idle are closed
// within settled, or all are closed because the proxy has drained.
func TestWaitsForOldConnections(t *testing.T) {
	with := captured(t, "waypoint-fault")
	synctest.Test(t, func(t *testing.T) {
		c := readyCluster(t)
		proxy := c.proxies["waypoint-1"]
		proxy.serve, proxy.draining = with, 2
		c.others = []runtime.Object{
			object("networking.istio.io/v1", "VirtualService", "appb-delay",
				map[string]any{"spec": map[string]any{"hosts": []any{"appb"}}}),
		}
		want := fault(50, 2*time.Second, "/headers")
		err := c.mesh().Wait(within(t, settled/2), FaultOn(target(), "appb-delay", want))
		if err == nil || !strings.Contains(err.Error(), "connections made before still use the old one") {
			t.Error(err)
		}
		wait := func(expected time.Duration) {
			t.Helper()
			began := time.Now()
			if err := c.mesh().Wait(within(t, time.Minute), FaultOn(target(), "appb-delay", want)); err != nil {
				t.Error(err)
			}
			if took := time.Since(began); took < expected || took > expected+lookEvery {
				t.Errorf("returned after %s, want %s", took, expected)
			}
		}
		wait(settled)
		// One look cannot tell how long it has been so.
		if met, reason, err := c.mesh().Check(t.Context(), FaultOn(target(), "appb-delay", want)); met || err != nil {
			t.Errorf("met %v, %q, %v", met, reason, err)
		}
		// A configuration that came, went and came again counts from the last time on.
		set := func(after time.Duration, change func()) {
			time.AfterFunc(after, func() {
				proxy.mu.Lock()
				defer proxy.mu.Unlock()
				change()
			})
		}
		const gone, back = 550 * time.Millisecond, 850 * time.Millisecond
		without := captured(t, "waypoint")
		set(gone, func() { proxy.serve = without })
		set(back, func() { proxy.serve = with })
		wait(back + settled)
		const drained = 450 * time.Millisecond
		set(drained, func() { proxy.draining = 0 })
		wait(drained)
	})
}

// Every replica must hold it, not any.
func TestEveryReplica(t *testing.T) {
	with, without := captured(t, "waypoint-authz"), captured(t, "waypoint")
	synctest.Test(t, func(t *testing.T) {
		c := readyCluster(t)
		c.pods = append(c.pods, pod("waypoint-2", "appb-waypoint", "10.244.2.31"))
		c.proxies["waypoint-1"].serve = with
		c.proxies["waypoint-2"] = &fakeProxy{serve: without}
		want := authz([]string{"GET"}, appaPrincipal, gatewayPrincipal)
		c.others = []runtime.Object{
			object("security.istio.io/v1", "AuthorizationPolicy", "appb-get-only",
				withCondition("WaypointAccepted", "True", "Accepted", "bound")),
		}
		err := c.mesh().Wait(within(t, 2*time.Second), AuthzOn(target(), want))
		if err == nil || !strings.Contains(err.Error(), "pod waypoint-2: the waypoint does not enforce") ||
			!problem.Is(err, problem.ConfigNotArrived) {
			t.Error(err)
		}
		c.proxies["waypoint-2"].set(with)
		if held, reason, err := c.mesh().Check(t.Context(), AuthzOn(target(), want)); !held || err != nil {
			t.Error(reason, err)
		}
		c.proxies["waypoint-2"].set(without)
		if gone, _, _ := c.mesh().Check(t.Context(), AuthzOff(target(), "default", "appb-get-only")); gone {
			t.Error("gone from one replica counts as gone")
		}
	})
}

func TestWhyNot(t *testing.T) {
	policy := func(name string, fields map[string]any) runtime.Object {
		return object("security.istio.io/v1", "AuthorizationPolicy", name, fields)
	}
	service := func(spec map[string]any) runtime.Object {
		return object("networking.istio.io/v1", "VirtualService", "appb-delay", map[string]any{"spec": spec})
	}
	selector := withCondition("ZtunnelAccepted", "True", "Accepted", "")
	selector["spec"] = map[string]any{"selector": map[string]any{"matchLabels": map[string]any{"app": "appb"}}}
	wantAuthz := authz([]string{"GET"}, appaPrincipal)
	waitAuthz := func(ctx context.Context, m *Mesh) error { return m.Wait(ctx, AuthzOn(target(), wantAuthz)) }
	waitFault := func(ctx context.Context, m *Mesh) error {
		return m.Wait(ctx, FaultOn(target(), "appb-delay", fault(50, 2*time.Second, "/headers")))
	}
	for name, tc := range map[string]struct {
		wait   func(context.Context, *Mesh) error
		object runtime.Object
		want   string
		kind   problem.Kind
	}{
		"no policy": {
			waitAuthz, nil, "AuthorizationPolicy default/appb-get-only does not exist",
			problem.ConfigNotAttached,
		},
		"selector": {
			waitAuthz, policy("appb-get-only", selector),
			"waypoints ignore policies with one, and ztunnel, which takes them, cannot see methods; " +
				"it needs `targetRefs`", problem.ConfigNotAttached,
		},
		"not accepted": {
			waitAuthz,
			policy("appb-get-only",
				withCondition("WaypointAccepted", "False", "TargetNotFound", "service default/appx not found")),
			"TargetNotFound: service default/appx not found", problem.ConfigNotAttached,
		},
		"not looked at": {
			waitAuthz, policy("appb-get-only", map[string]any{}), "has not attached",
			problem.ConfigNotAttached,
		},
		"no service": {waitFault, nil, "VirtualService default/appb-delay does not exist", problem.ConfigNotAttached},
		"other host": {
			waitFault, service(map[string]any{"hosts": []any{"appx"}}),
			"is for the host appx, not for appb.default.svc.cluster.local", problem.ConfigNotAttached,
		},
		"gateway only": {
			waitFault, service(map[string]any{"hosts": []any{"appb"}, "gateways": []any{"gateway"}}),
			"a waypoint takes only those for the mesh", problem.ConfigNotAttached,
		},
		"late": {
			waitFault, service(map[string]any{"hosts": []any{"appb"}}), "the waypoint does not delay /headers",
			problem.ConfigNotArrived,
		},
		"strict": {
			func(ctx context.Context, m *Mesh) error {
				return m.Wait(ctx, StrictOn("default", "appb-only-via-waypoint"))
			},
			policy("appb-only-via-waypoint", withCondition("ZtunnelAccepted", "False", "Invalid", "no")), "Invalid: no",
			problem.ConfigNotAttached,
		},
		"strict, accepted": {
			func(ctx context.Context, m *Mesh) error {
				return m.Wait(ctx, StrictOn("default", "appb-only-via-waypoint"))
			},
			policy("appb-only-via-waypoint", withCondition("ZtunnelAccepted", "True", "Accepted", "")), "",
			problem.Kind{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := readyCluster(t)
				if tc.object != nil {
					c.others = []runtime.Object{tc.object}
				}
				err := tc.wait(within(t, 3*time.Second), c.mesh())
				if tc.want == "" {
					if err != nil {
						t.Error(err)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), tc.want) || !problem.Is(err, tc.kind) {
					t.Errorf("%v; want %q", err, tc.want)
				}
			})
		})
	}
}

// A refusal that stands ends the wait before its deadline, in Envoy's words.
func TestRejectionEndsTheWait(t *testing.T) {
	nack := captured(t, "waypoint-nack")
	synctest.Test(t, func(t *testing.T) {
		c := readyCluster(t)
		c.proxies["waypoint-1"].serve = nack
		began := time.Now()
		err := c.mesh().Wait(within(t, 10*time.Minute),
			FaultOn(target(), "appb-delay", fault(50, 2*time.Second, "/headers")))
		if !problem.Is(err, problem.ConfigRejected) ||
			!strings.Contains(fmt.Sprint(err),
				"Didn't find a registered implementation for 'waypoint_downstream_peer_metadata'") {
			t.Error(err)
		}
		if took := time.Since(began); took > rejectionLasts+explainEvery {
			t.Errorf("took %s", took)
		}
	})
}

// An object that has no effect, such as a policy that Istio refuses, ends the wait before its deadline.
func TestDetachedObjectEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := readyCluster(t)
		began := time.Now()
		err := c.mesh().Wait(within(t, 10*time.Minute),
			FaultOn(target(), "appb-delay", fault(30, time.Second, "/other")))
		if !problem.Is(err, problem.ConfigNotAttached) {
			t.Error(err)
		}
		if took := time.Since(began); took < detachedLasts || took > detachedLasts+2*explainEvery {
			t.Errorf("took %s", took)
		}
	})
}

func TestWaypointOff(t *testing.T) {
	around := captured(t, "gateway-no-label")
	synctest.Test(t, func(t *testing.T) {
		c := readyCluster(t)
		err := c.mesh().Wait(within(t, time.Second), WaypointOff(target()))
		if err == nil || !strings.Contains(err.Error(), "still bound") {
			t.Error(err)
		}
		c.service.Status.Conditions = nil
		err = c.mesh().Wait(within(t, time.Second), WaypointOff(target()))
		if err == nil || !strings.Contains(err.Error(), "still sends requests") {
			t.Error(err)
		}
		c.proxies["gateway-1"].set(around)
		if err := c.mesh().Wait(within(t, time.Second), WaypointOff(target())); err != nil {
			t.Error(err)
		}
		c.pods = c.pods[1:]
		if gone, reason, err := c.mesh().
			Check(t.Context(), FaultOff(target(), fault(50, 2*time.Second, "/headers"))); !gone || err != nil {
			t.Error("no waypoint still delays:", reason, err)
		}
	})
}

func TestWaitIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := readyCluster(t)
		ctx, cancel := context.WithCancelCause(t.Context())
		gone := errors.New("SIGTERM")
		time.AfterFunc(time.Second, func() { cancel(gone) })
		err := c.mesh().Wait(ctx, FaultOn(target(), "appb-delay", fault(50, 2*time.Second, "/headers")))
		if !errors.Is(err, gone) {
			t.Error(err)
		}
	})
}
