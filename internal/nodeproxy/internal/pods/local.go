package pods

import (
	"context"
	"fmt"
	"sync"
	"time"

	"ambientlab/nodeproxy/internal/identity"
	"ambientlab/nodeproxy/internal/workload"
	"ambientlab/nodeproxy/internal/zds"
)

// localTimeout is how long a connection waits for the pod's workload or certificate: a pod may send before the control
// plane has sent its workload.
const localTimeout = 10 * time.Second

// local is the pod's own workload and certificate.
type local struct {
	ref       workload.Ref
	workloads *workload.Store
	certs     *identity.Store

	mu     sync.Mutex
	uid    string
	id     identity.Identity
	done   func() // releases the certificate of id
	closed bool
}

func newLocal(ctx context.Context, pod zds.Pod, workloads *workload.Store, certs *identity.Store) *local {
	l := &local{
		ref:       workload.Ref{Name: pod.Name, Namespace: pod.Namespace, ServiceAccount: pod.ServiceAccount},
		workloads: workloads, certs: certs,
	}
	// The certificate is requested before the first connection.
	go func() {
		if w, err := workloads.Local(ctx, l.ref); err == nil {
			l.acquire(w.Identity())
		}
	}()
	return l
}

// Workload returns the pod's workload.
func (l *local) Workload(ctx context.Context) (*workload.Workload, error) {
	l.mu.Lock()
	uid := l.uid
	l.mu.Unlock()
	if w := l.workloads.ByUID(uid); w != nil && l.ref.Names(w) {
		return w, nil
	}
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	w, err := l.workloads.Local(ctx, l.ref)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	l.uid = w.UID
	l.mu.Unlock()
	return w, nil
}

// Certificate returns the pod's current certificate.
func (l *local) Certificate(ctx context.Context) (*identity.Certificate, error) {
	w, err := l.Workload(ctx)
	if err != nil {
		return nil, err
	}
	l.acquire(w.Identity())
	ctx, cancel := context.WithTimeout(ctx, localTimeout)
	defer cancel()
	c, err := l.certs.Get(ctx, w.Identity())
	if err != nil {
		return nil, fmt.Errorf("certificate of pod %s/%s: %w", l.ref.Namespace, l.ref.Name, err)
	}
	return c, nil
}

// acquire acquires the certificate of id, and releases the one of another identity.
func (l *local) acquire(id identity.Identity) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.id == id {
		return
	}
	next := l.certs.Acquire(id)
	if l.done != nil {
		l.done()
	}
	l.id, l.done = id, next
}

func (l *local) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.done != nil {
		l.done()
	}
}
