package mesh

import (
	"context"
	"errors"
	"slices"

	"ambientlab/internal/problem"

	corev1 "k8s.io/api/core/v1"
)

// proxies keeps the proxies of one wait, so that each look reuses their port-forwards.
type proxies struct {
	mesh *Mesh
	open map[string]Proxy // by namespace/pod@uid: a name may come back as another pod
	node map[string]nodeProxy
}

func (m *Mesh) proxies() *proxies {
	return &proxies{mesh: m, open: map[string]Proxy{}, node: map[string]nodeProxy{}}
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
func (p *proxies) running(ctx context.Context, namespace, gateway string) ([]corev1.Pod, finding, error) {
	pods, err := p.mesh.podsOf(ctx, namespace, gateway)
	if err != nil {
		return nil, finding{}, err
	}
	running := slices.DeleteFunc(slices.Clone(pods), func(pod corev1.Pod) bool {
		return pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil
	})
	if len(running) > 0 {
		return running, finding{}, nil
	}
	if why := notRunning(pods); why != "" {
		return nil, no(problem.WaypointNotReady, "%s", why), nil
	}
	return nil, no(problem.WaypointNotReady, "Gateway %s/%s has no running pod", namespace, gateway), nil
}

// every asks a question of the configuration of every running pod of a Gateway; it is
// held when all hold it, and for all of their connections.
func (p *proxies) every(ctx context.Context, namespace, gateway string, question func(*Dump) (bool, string)) (finding, error) {
	pods, none, err := p.running(ctx, namespace, gateway)
	if err != nil || len(pods) == 0 {
		return none, err
	}
	for i := range pods {
		dump, err := p.of(&pods[i]).Dump(ctx)
		if err != nil {
			return finding{}, err
		}
		held, reason := question(dump)
		if held && dump.Draining > 0 {
			held, reason = false, "the proxy holds it, but connections made before still go by the old configuration"
		}
		if !held {
			if len(pods) > 1 {
				reason = "pod " + pods[i].Name + ": " + reason
			}
			return no(problem.ConfigNotArrived, "%s", reason), nil
		}
	}
	return yes(), nil
}

// trouble finds out whether the proxies of a Gateway are in a state in which nothing
// new arrives: they refuse what istiod sends, or have no stream to it.
func (p *proxies) trouble(ctx context.Context, namespace, gateway string) (finding, error) {
	pods, _, err := p.running(ctx, namespace, gateway)
	if err != nil {
		return finding{}, err
	}
	for i := range pods {
		proxy := p.of(&pods[i])
		dump, err := proxy.Dump(ctx)
		if err != nil {
			return finding{}, err
		}
		if len(dump.Rejections) > 0 {
			refused := dump.Rejections[0]
			return no(problem.ConfigRejected, "the proxy in pod %s refuses %s: %s", pods[i].Name, refused.Resource, refused.Details), nil
		}
		connected, err := proxy.Connected(ctx)
		if errors.Is(err, errors.ErrUnsupported) {
			continue
		}
		if err != nil {
			return finding{}, err
		}
		if !connected {
			return no(problem.IstiodDisconnected, "the proxy in pod %s is not connected to istiod", pods[i].Name), nil
		}
	}
	return finding{}, nil
}
