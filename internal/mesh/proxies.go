package mesh

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"

	"ambientlab/internal/apply"
	"ambientlab/internal/problem"
)

// proxies keeps the proxies of one wait, so that each look reuses their port-forwards.
type proxies struct {
	mesh *Mesh
	open map[string]Proxy // by namespace/pod@uid: a name may come back as another pod
	// arrived is since when a proxy has what is waited for, while it still serves older connections.
	arrived map[string]time.Time
	node    map[string]nodeProxy
}

func (m *Mesh) proxies() *proxies {
	return &proxies{mesh: m, open: map[string]Proxy{}, arrived: map[string]time.Time{}, node: map[string]nodeProxy{}}
}

func keyOf(pod *corev1.Pod) string { return pod.Namespace + "/" + pod.Name + "@" + string(pod.UID) }

func (p *proxies) of(pod *corev1.Pod) Proxy {
	key := keyOf(pod)
	if p.open[key] == nil {
		p.open[key] = p.mesh.proxy(pod.Namespace, pod.Name)
	}
	return p.open[key]
}

// ofNode gives the ztunnel in a pod.
func (p *proxies) ofNode(pod *corev1.Pod) nodeProxy {
	key := keyOf(pod)
	if p.node[key] == nil {
		p.node[key] = p.mesh.nodeProxy(pod.Namespace, pod.Name)
	}
	return p.node[key]
}

// close gives every port-forward back.
func (p *proxies) close() {
	for _, proxy := range p.node {
		_ = proxy.Close()
	}
	for _, proxy := range p.open {
		_ = proxy.Close()
	}
}

// running gives the pods of a Gateway that run, and where there is none, why.
func (p *proxies) running(ctx context.Context, namespace, gateway string) ([]corev1.Pod, *problem.Problem, error) {
	pods, err := p.mesh.podsOf(ctx, namespace, gateway)
	if err != nil {
		return nil, nil, err
	}
	running := slices.DeleteFunc(slices.Clone(pods), func(pod corev1.Pod) bool {
		return pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil
	})
	if len(running) > 0 {
		return running, nil, nil
	}
	if found := (apply.Pods{Items: pods}).Trouble(); found != nil {
		return nil, found, nil
	}
	return nil, problem.New(problem.WaypointNotReady, nil, "Gateway %s/%s has no running pod", namespace, gateway), nil
}

// IdleTimeout is after what time the gateway closes idle connections to the waypoint (specs/lessons/waypoint).
const IdleTimeout = 500 * time.Millisecond

// settled is how long after a new configuration has arrived at a proxy no request of the gateway meets the old one any
// more: connections that were open before are closed after one more answer, or were idle and are closed by the gateway.
// Twice its idle timeout leaves room for timers. A client in the mesh that keeps a connection open for longer may still
// get one answer by the old configuration; that ends when the proxy has drained (the mesh's drainDuration).
const settled = 2 * IdleTimeout

// hold reads the configuration of every running pod of a Gateway. The test is met when it is met of all.
func (p *proxies) hold(ctx context.Context, namespace, gateway string, met test) (*problem.Problem, error) {
	return p.each(ctx, namespace, gateway, func(_ *corev1.Pod, dump *Dump) (bool, string) { return met(dump) })
}

// every is hold for a configuration that connections made before do not have: each pod also serves none of those, or
// has had the configuration for as long as settled.
func (p *proxies) every(ctx context.Context, namespace, gateway string, met test) (*problem.Problem, error) {
	return p.each(ctx, namespace, gateway, func(pod *corev1.Pod, dump *Dump) (bool, string) {
		is, reason := met(dump)
		if key := keyOf(pod); !is {
			delete(p.arrived, key)
		} else if dump.Draining > 0 {
			if p.arrived[key].IsZero() {
				p.arrived[key] = time.Now()
			}
			is = time.Since(p.arrived[key]) >= settled
			reason = "the proxy has the new configuration, but connections made before still use the old one"
		}
		return is, reason
	})
}

// each asks of every running pod of a Gateway, with the configuration of its proxy, and stops at the first no.
func (p *proxies) each(
	ctx context.Context, namespace, gateway string, met func(*corev1.Pod, *Dump) (bool, string),
) (*problem.Problem, error) {
	pods, none, err := p.running(ctx, namespace, gateway)
	if err != nil || len(pods) == 0 {
		return none, err
	}
	for i := range pods {
		dump, err := p.of(&pods[i]).Dump(ctx)
		if err != nil {
			return nil, err
		}
		if is, reason := met(&pods[i], dump); !is {
			if len(pods) > 1 {
				reason = "pod " + pods[i].Name + ": " + reason
			}
			return problem.New(problem.ConfigNotArrived, nil, "%s", reason), nil
		}
	}
	return nil, nil
}

// configurationTrouble tells whether the proxies of Gateways are in a state in which no new configuration takes effect:
// they refuse what istiod sends, or have no stream to it. A Gateway without a name is left out.
func (p *proxies) configurationTrouble(
	ctx context.Context, namespace string, gateways ...string,
) (*problem.Problem, error) {
	for _, gateway := range gateways {
		if gateway == "" {
			continue
		}
		pods, _, err := p.running(ctx, namespace, gateway)
		if err != nil {
			return nil, err
		}
		for i := range pods {
			found, err := proxyTrouble(ctx, pods[i].Name, p.of(&pods[i]))
			if err != nil || found != nil {
				return found, err
			}
		}
	}
	return nil, nil
}

func proxyTrouble(ctx context.Context, pod string, proxy Proxy) (*problem.Problem, error) {
	dump, err := proxy.Dump(ctx)
	if err != nil {
		return nil, err
	}
	if len(dump.Rejections) > 0 {
		refused := dump.Rejections[0]
		return problem.New(problem.ConfigRejected, nil, "the proxy in pod %s refuses %s: %s", pod, refused.Resource,
			refused.Details), nil
	}
	connected, err := proxy.Connected(ctx)
	if err != nil || connected {
		return nil, err
	}
	return problem.New(problem.IstiodDisconnected, nil, "the proxy in pod %s is not connected to istiod", pod), nil
}
