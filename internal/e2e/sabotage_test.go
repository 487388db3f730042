//go:build e2e && e2efull

package e2e

import (
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ambientlab/internal/probe"
)

// allOn is what the lab is asked for in these tests, and so what it claims.
var allOn = on()

// TestSabotage breaks the lab in the ways in which ambient breaks silently. Every claim that is touched must come out
// refuted or inconclusive, for the right reason; put right again, it must be proven again. E2E_LAB and E2E_KUBECONFIG
// name a lab that stands already and is left standing.
func TestSabotage(t *testing.T) {
	l := newLab(t, "lab-sabotage")
	if standing := os.Getenv("E2E_LAB"); standing != "" {
		kubeconfig := os.Getenv("E2E_KUBECONFIG")
		l.name, l.kubeconfig = standing, kubeconfig
		l.env = []string{"SM_CLUSTER=" + standing, "KUBECONFIG=" + kubeconfig, "SM_OUTPUT=plain"}
	} else {
		t.Cleanup(func() { l.mage(t, "sm:delete") })
		l.mage(t, "sm:install")
	}
	for _, target := range []string{"sm:apps", "sm:waypoint", "sm:fault", "sm:authz"} {
		l.mage(t, target)
	}
	ip := l.gatewayAddress(t)
	posts := func(want int) func() (bool, string) {
		return func() (bool, string) {
			status, _, _ := get(t, http.MethodPost, ip, "/post")
			return status == want, http.StatusText(status)
		}
	}
	for _, s := range []struct {
		name   string
		breaks func()
		mends  func()
		// claims must not be proven, and one of the causes of each must say so.
		claims []string
		says   string
	}{
		{
			"policy with selector instead of targetRefs",
			func() {
				l.patch(t, policies, "appb-get-only",
					`{"spec":{"targetRefs":null,"selector":{"matchLabels":{"app":"appb"}}}}`)
				until(t, "the waypoint to forget the policy", func() (bool, string) {
					status, _, _ := get(t, http.MethodPost, ip, "/post")
					return status != http.StatusForbidden, http.StatusText(status)
				})
			},
			func() { l.remove(t, policies, "appb-get-only"); l.mage(t, "sm:authz") },
			[]string{"authz-post-appa", "authz-post-gateway", "authz-outsider"},
			"`selector`",
		},
		{
			"ingress label removed",
			func() {
				l.patch(t, services, "appb", `{"metadata":{"labels":{"istio.io/ingress-use-waypoint":null}}}`)
				until(t, "the gateway to go around the waypoint", posts(http.StatusOK))
			},
			func() { l.mage(t, "sm:waypoint") },
			[]string{"waypoint-gateway", "fault-gateway", "authz-post-gateway"},
			"ingress-use-waypoint",
		},
		{
			"waypoint scaled to zero",
			func() {
				l.patch(t, deployments, "appb-waypoint", `{"spec":{"replicas":0}}`)
				l.rolledOut(t, "appb-waypoint", 0)
			},
			func() {
				l.patch(t, deployments, "appb-waypoint", `{"spec":{"replicas":1}}`)
				l.rolledOut(t, "appb-waypoint", 1)
				l.mage(t, "sm:waypoint")
			},
			[]string{"waypoint-appa", "waypoint-gateway", "authz-post-appa"},
			"scaled to zero",
		},
		{
			"VirtualService for another host",
			func() {
				l.patch(t, virtualServices, "appb-delay", `{"spec":{"hosts":["appa.default.svc.cluster.local"]}}`)
				if _, err := probe.NoneDelayed(t.Context(), l.proofs(t, allOn), probe.Gateway,
					*allOn.Fault); err != nil {
					t.Fatal(err)
				}
			},
			func() { l.remove(t, virtualServices, "appb-delay"); l.mage(t, "sm:fault") },
			[]string{"fault-appa", "fault-gateway"},
			"for the host appa",
		},
		{
			"30 % where 50 % is claimed",
			func() {
				l.remove(t, virtualServices, "appb-delay")
				l.mage(t, "sm:fault", "-percent=30")
			},
			func() { l.mage(t, "sm:fault", "-percent=50") },
			[]string{"fault-appa", "fault-gateway"},
			"30 %",
		},
	} {
		t.Run(s.name, func(t *testing.T) {
			s.breaks()
			l.measure(t, s.claims, func(t *testing.T, r probe.Result) {
				if r.Verdict == probe.Proven || !strings.Contains(strings.Join(r.Causes, "\n"), s.says) {
					t.Errorf("want it not proven, because of %q: %s", s.says, describe(r))
				}
				t.Log(describe(r))
			})
			s.mends()
			l.measure(t, s.claims, func(t *testing.T, r probe.Result) {
				if r.Verdict != probe.Proven {
					t.Errorf("put right, and still: %s", describe(r))
				}
			})
		})
	}
	t.Run("no ztunnel on any node", l.testNoZtunnel)
}

func (l *lab) measure(t *testing.T, claims []string, judge func(*testing.T, probe.Result)) {
	t.Helper()
	found, err := probe.Run(t.Context(), l.proofs(t, allOn, claims...))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range claims {
		i := slices.IndexFunc(found.Claims, func(r probe.Result) bool { return r.ID == id })
		if i < 0 {
			t.Fatalf("claim %s was not made", id)
		}
		judge(t, found.Claims[i])
	}
	kube, _ := l.kube(t)
	left, err := kube.CoreV1().Pods("default").
		List(t.Context(), metav1.ListOptions{LabelSelector: "lab.opssec.in/caller"})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range left.Items {
		if pod.DeletionTimestamp == nil {
			t.Errorf("the short-lived caller %s is left", pod.Name)
		}
	}
}
