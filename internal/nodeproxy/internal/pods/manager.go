package pods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"

	"ambientlab/nodeproxy/internal/netns"
	"ambientlab/nodeproxy/internal/zds"
)

// Manager serves the pods that istio-cni names. It implements zds.Pods.
type Manager struct {
	deps Deps

	mu       sync.Mutex
	active   map[string]*proxy
	pending  map[string]pending
	draining bool
	stopping sync.WaitGroup
}

type pending struct {
	pod zds.Pod
	ns  *netns.Namespace
}

// NewManager returns a manager without pods.
func NewManager(d Deps) *Manager {
	return &Manager{deps: d, active: map[string]*proxy{}, pending: map[string]pending{}}
}

// Add implements zds.Pods.
func (m *Manager) Add(pod zds.Pod, file *os.File) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.count()
	ns, err := netns.New(m.deps.Home, file)
	if err != nil {
		return errors.Join(fmt.Errorf("pod %s/%s: %w", pod.Namespace, pod.Name, err), file.Close())
	}
	m.forget(pod.UID)
	if p := m.active[pod.UID]; p != nil {
		if p.ns.ID() == ns.ID() && p.pod == pod {
			return ns.Close()
		}
		// The pod has a new sandbox; the old namespace is not used again.
		m.retire(pod.UID)
	}
	return m.start(pod, ns)
}

// start starts to serve a pod, or keeps it for Retry; the caller holds mu.
func (m *Manager) start(pod zds.Pod, ns *netns.Namespace) error {
	if m.draining {
		return errors.Join(errors.New("the node proxy is shutting down"), ns.Close())
	}
	again, err := ns.Clone()
	if err != nil {
		return errors.Join(err, ns.Close())
	}
	p, err := start(m.deps, pod, ns)
	if err != nil {
		m.pending[pod.UID] = pending{pod: pod, ns: again}
		return err
	}
	m.active[pod.UID] = p
	m.deps.Log.Info("pod is served", "uid", pod.UID, "pod", pod.Namespace+"/"+pod.Name)
	return again.Close()
}

// Delete implements zds.Pods.
func (m *Manager) Delete(uid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.count()
	m.forget(uid)
	m.retire(uid)
}

// Keep implements zds.Pods.
func (m *Manager) Keep(uids map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.count()
	for uid := range m.active {
		if !uids[uid] {
			m.retire(uid)
		}
	}
	for uid := range m.pending {
		if !uids[uid] {
			m.forget(uid)
		}
	}
}

// Retry implements zds.Pods.
func (m *Manager) Retry() {
	m.mu.Lock()
	defer m.mu.Unlock()
	defer m.count()
	waiting := m.pending
	m.pending = map[string]pending{}
	for _, w := range waiting {
		if err := m.start(w.pod, w.ns); err != nil {
			m.deps.Log.Warn("pod cannot be served yet", "pod", w.pod.Namespace+"/"+w.pod.Name, "error", err)
		}
	}
}

// Waiting implements zds.Pods.
func (m *Manager) Waiting() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.pending) > 0
}

// forget removes a pod that waits for Retry; the caller holds mu.
func (m *Manager) forget(uid string) {
	if w, ok := m.pending[uid]; ok {
		_ = w.ns.Close()
		delete(m.pending, uid)
	}
}

// retire stops serving a pod in the background; the caller holds mu.
func (m *Manager) retire(uid string) {
	p := m.active[uid]
	if p == nil {
		return
	}
	delete(m.active, uid)
	p.stopListening()
	m.stopping.Go(p.stop)
}

func (m *Manager) count() { m.deps.Telemetry.Pods(len(m.active), len(m.pending)) }

// Pods returns the pods by state, ordered by UID.
func (m *Manager) Pods() (active, waiting []zds.Pod) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, p := range m.active {
		active = append(active, p.pod)
	}
	for _, w := range m.pending {
		waiting = append(waiting, w.pod)
	}
	byUID := func(a, b zds.Pod) int { return strings.Compare(a.UID, b.UID) }
	slices.SortFunc(active, byUID)
	slices.SortFunc(waiting, byUID)
	return active, waiting
}

// Drain stops listening in all pods at once, lets connections end by themselves until ctx ends, and then resets them.
func (m *Manager) Drain(ctx context.Context) {
	m.mu.Lock()
	m.draining = true
	for uid := range m.pending {
		m.forget(uid)
	}
	for _, p := range m.active {
		p.stopListening()
		m.stopping.Go(func() { p.drain(ctx) })
	}
	m.deps.HBONE.Drain()
	m.active = map[string]*proxy{}
	m.mu.Unlock()
	m.stopping.Wait()
}
