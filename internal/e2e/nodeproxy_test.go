//go:build e2e && e2efull

package e2e

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"

	"ambientlab/internal/docker"
)

const istioSystem = "istio-system"

// TestNodeProxy holds the node proxy to what a mesh owes its pods, on a real cluster. E2E_LAB and E2E_KUBECONFIG name a
// lab that stands already and is left standing.
func TestNodeProxy(t *testing.T) {
	l := newLab(t, "lab-proxy")
	if standing := os.Getenv("E2E_LAB"); standing != "" {
		l.name, l.kubeconfig = standing, os.Getenv("E2E_KUBECONFIG")
		l.env = []string{"SM_CLUSTER=" + standing, "KUBECONFIG=" + l.kubeconfig, "SM_OUTPUT=plain"}
	} else {
		t.Cleanup(func() {
			if t.Failed() {
				l.dump(t)
			}
			l.try(t, "sm:delete")
		})
		l.mage(t, "sm:install")
		l.mage(t, "sm:apps") // brings the images that the test's own pods use
	}
	p := l.proxyPods(t)
	t.Run("pods reach each other, on one node and across", func(t *testing.T) { p.testReach(t) })
	t.Run("only TLS between nodes", func(t *testing.T) { p.testWire(t) })
	t.Run("policies", func(t *testing.T) { p.testPolicies(t) })
	t.Run("killed and replaced under load", func(t *testing.T) { p.testKills(t) })
	t.Run("64 connections, compared with the same outside the mesh", func(t *testing.T) { p.testLoad(t) })
}

func (p *proxyPods) testReach(t *testing.T) {
	for _, from := range []struct{ ns, pod, url string }{
		{meshed, "same", meshURL},
		{meshed, "other", meshURL},
		{outside, "same", meshURL},
		{outside, "other", meshURL},
		{meshed, "same", plainURL},
		{meshed, "other", plainURL},
	} {
		// Who is outside the mesh depends on kube-proxy, which learns of new endpoints a moment after they are ready.
		p.until(t, from.ns+"/"+from.pod+" to "+from.url, 10*time.Second, func() error {
			return p.ask(t, from.ns, from.pod, from.url+"/status/200")
		})
	}
}

func (p *proxyPods) testWire(t *testing.T) {
	const marker = "marker-of-this-test-alone"
	for _, c := range []struct {
		ns, url string
		secret  bool
	}{{meshed, meshURL, true}, {outside, plainURL, false}} {
		here, there := p.lab.capture(t, p.server), p.lab.capture(t, p.other)
		for _, pod := range []string{"same", "other"} {
			if err := p.ask(t, c.ns, pod, c.url+"/headers", "-H", "X-Marker: "+marker); err != nil {
				t.Errorf("%s/%s: %v", c.ns, pod, err)
			}
		}
		clearHere, tlsHere := here.stop(marker)
		clearThere, tlsThere := there.stop(marker)
		t.Logf("%s: marker in the clear in %d and %d packets, %d and %d TLS records on 15008", c.ns, clearHere,
			clearThere, tlsHere, tlsThere)
		switch {
		case c.secret && (clearHere > 0 || clearThere > 0):
			t.Error("what the mesh carries is readable on a node")
		case c.secret && (tlsHere == 0 || tlsThere == 0):
			t.Error("no TLS on port 15008")
		case !c.secret && clearHere == 0:
			t.Error("the control: what travels outside the mesh was not seen, so this capture shows nothing")
		}
	}
}

func istioKind(resource string) schema.GroupVersionResource {
	return schema.GroupVersionResource{Group: "security.istio.io", Version: "v1", Resource: resource}
}

func (p *proxyPods) testPolicies(t *testing.T) {
	_, objects := p.lab.kube(t)
	apply := func(kind, resource, name string, spec map[string]any) {
		t.Helper()
		object := &unstructured.Unstructured{Object: map[string]any{
			"apiVersion": "security.istio.io/v1", "kind": kind,
			"metadata": map[string]any{"name": name, "namespace": meshed}, "spec": spec,
		}}
		client := objects.Resource(istioKind(resource)).Namespace(meshed)
		if _, err := client.Create(t.Context(), object, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()
			if err := client.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				t.Error(err)
			}
		})
	}
	resets := func(ns, pod string) {
		t.Helper()
		p.until(t, ns+"/"+pod+" is reset", 20*time.Second, func() error {
			err := p.ask(t, ns, pod, meshURL+"/status/200")
			if err == nil || !strings.Contains(err.Error(), "connection reset") {
				return fmt.Errorf("got %v, want a reset", err)
			}
			return nil
		})
	}
	passes := func(ns, pod string) {
		t.Helper()
		p.until(t, ns+"/"+pod+" passes", 20*time.Second,
			func() error { return p.ask(t, ns, pod, meshURL+"/status/200") })
	}
	t.Run("DENY by principal resets", func(t *testing.T) {
		apply("AuthorizationPolicy", "authorizationpolicies", "deny-client", map[string]any{
			"selector": map[string]any{"matchLabels": map[string]any{"app": "server"}},
			"action":   "DENY",
			"rules": []any{map[string]any{"from": []any{map[string]any{"source": map[string]any{
				"principals": []any{"cluster.local/ns/" + meshed + "/sa/client"},
			}}}}},
		})
		resets(meshed, "same")
		resets(meshed, "other")
		passes(outside, "other")
		if err := objects.Resource(istioKind("authorizationpolicies")).Namespace(meshed).
			Delete(t.Context(), "deny-client", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		passes(meshed, "other")
	})
	t.Run("STRICT refuses who is not in the mesh", func(t *testing.T) {
		apply("PeerAuthentication", "peerauthentications", "strict",
			map[string]any{"mtls": map[string]any{"mode": "STRICT"}})
		resets(outside, "other")
		resets(outside, "same")
		passes(meshed, "same")
		passes(meshed, "other")
		p.ready(t, meshed) // the kubelet's probes are not refused
		if err := objects.Resource(istioKind("peerauthentications")).Namespace(meshed).
			Delete(t.Context(), "strict", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		passes(outside, "other")
	})
}

// testKills takes each part away under a load of new connections. What is allowed to fail is what comes while there is
// no proxy at all; what is left of the mesh goes on, and everything works again without a pod restarted.
func (p *proxyPods) testKills(t *testing.T) {
	const perSecond = 50
	ztunnel := func(node string) string {
		list, err := p.exec.Pods(t.Context(), istioSystem, "app=ztunnel")
		if err != nil {
			t.Fatal(err)
		}
		for _, pod := range list {
			if pod.Node == node {
				return pod.Name
			}
		}
		t.Fatalf("no ztunnel on %s", node)
		return ""
	}
	remove := func(selector string, nodes ...string) {
		list, err := p.exec.Pods(t.Context(), istioSystem, selector)
		if err != nil {
			t.Fatal(err)
		}
		for _, pod := range list {
			if len(nodes) == 0 || strings.Contains(" "+strings.Join(nodes, " ")+" ", " "+pod.Node+" ") {
				if err := p.kube.CoreV1().Pods(istioSystem).
					Delete(t.Context(), pod.Name, metav1.DeleteOptions{}); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	before, err := p.exec.Pods(t.Context(), meshed, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, k := range []struct {
		name string
		kill func()
		// seconds of new connections may fail; none if zero.
		seconds int64
	}{
		{"node proxy of the client killed", func() {
			pid, err := docker.Exec(t.Context(), p.lab.docker, p.other, "pgrep", "-o", "-x", "ztunnel")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := docker.Exec(t.Context(), p.lab.docker, p.other, "kill", "-KILL",
				strings.TrimSpace(pid)); err != nil {
				t.Fatal(err)
			}
		}, 15},
		{"node proxy's pod of the server deleted", func() {
			if err := p.kube.CoreV1().Pods(istioSystem).
				Delete(t.Context(), ztunnel(p.server), metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}, 15},
		{"istio-cni of both nodes deleted", func() { remove("k8s-app=istio-cni-node", p.server, p.other) }, 0},
		{"istiod deleted", func() { remove("app=istiod") }, 0},
		{"node proxies replaced by a rolling update", func() {
			restart := fmt.Sprintf(`{"spec":{"template":{"metadata":{"annotations":{"lab.opssec.in/restarted":%q}}}}}`,
				time.Now().Format(time.RFC3339))
			if _, err := p.kube.AppsV1().DaemonSets(istioSystem).
				Patch(t.Context(), "ztunnel", types.MergePatchType, []byte(restart),
					metav1.PatchOptions{}); err != nil {
				t.Fatal(err)
			}
		}, 1},
	} {
		t.Run(k.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			type outcome struct {
				m   measured
				err error
			}
			ended := make(chan outcome, 1)
			go func() {
				m, err := p.load(ctx, meshed, "other", meshURL, "-keepalive=false", "-qps", fmt.Sprint(perSecond), "-c",
					"4", "-t", "40s")
				ended <- outcome{m, err}
			}()
			select { // some seconds of load before, so that connections are pooled
			case <-time.After(3 * time.Second):
			case o := <-ended:
				t.Fatalf("load ended early: %v", o.err)
			}
			k.kill()
			o := <-ended
			if o.err != nil {
				t.Fatal(o.err)
			}
			t.Logf("%d answers, %d failed: %.1f s of new connections", o.m.Codes["200"], o.m.failed(),
				float64(o.m.failed())/perSecond)
			if o.m.failed() > k.seconds*perSecond {
				t.Errorf("%d of the new connections failed: %v", o.m.failed(), o.m.Codes)
			}
			p.until(t, "the mesh is whole again", 2*time.Minute, func() error {
				m, err := p.load(ctx, meshed, "other", meshURL, "-keepalive=false", "-qps", "50", "-c", "4", "-t", "2s")
				if err == nil && m.failed() > 0 {
					err = fmt.Errorf("%d of 100 fail", m.failed())
				}
				return err
			})
			p.ready(t, istioSystem)
		})
	}
	after, err := p.exec.Pods(t.Context(), meshed, "")
	if err != nil {
		t.Fatal(err)
	}
	for i := range before {
		if i >= len(after) || before[i].UID != after[i].UID || before[i].Restarts != after[i].Restarts {
			t.Errorf("pod %s was restarted or replaced", before[i].Name)
		}
	}
}

func (p *proxyPods) testLoad(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	args := []string{"-qps", "0", "-c", "64", "-t", "30s"}
	plain, err := p.load(ctx, outside, "other", plainURL, args...)
	if err != nil {
		t.Fatal(err)
	}
	mesh, err := p.load(ctx, meshed, "other", meshURL, args...)
	if err != nil {
		t.Fatal(err)
	}
	if mesh.failed() > 0 {
		t.Errorf("%d failed: %v", mesh.failed(), mesh.Codes)
	}
	ms := func(m measured, q float64) float64 { return m.percentile(q) * 1000 }
	t.Logf("outside: %.0f/s, p50 %.2f ms, p99 %.2f ms; mesh: %.0f/s, p50 %.2f ms, p99 %.2f ms", plain.QPS,
		ms(plain, 50), ms(plain, 99), mesh.QPS, ms(mesh, 50), ms(mesh, 99))
	t.Logf("mesh to outside: throughput %.2f, p50 %.1f, p99 %.1f", mesh.QPS/plain.QPS, ms(mesh, 50)/ms(plain, 50),
		ms(mesh, 99)/ms(plain, 99))
}
