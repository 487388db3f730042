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

// patience is how long a connection waits for the pod's record or certificate; a pod may well send before the control
// plane has told of it.
const patience = 10 * time.Second

// local is the pod itself, as inbound and outbound see it.
type local struct {
	ref       workload.Ref
	workloads *workload.Store
	certs     *identity.Store

	mu     sync.Mutex
	uid    string
	holds  identity.Identity
	let    func()
	closed bool
}

func newLocal(ctx context.Context, pod zds.Pod, workloads *workload.Store, certs *identity.Store) *local {
	l := &local{
		ref:       workload.Ref{Name: pod.Name, Namespace: pod.Namespace, ServiceAccount: pod.ServiceAccount},
		workloads: workloads, certs: certs,
	}
	// The certificate is fetched ahead of the first connection.
	go func() {
		if w, err := workloads.Local(ctx, l.ref); err == nil {
			l.hold(w.Identity())
		}
	}()
	return l
}

// Workload returns the pod's record.
func (l *local) Workload(ctx context.Context) (*workload.Workload, error) {
	l.mu.Lock()
	uid := l.uid
	l.mu.Unlock()
	if w := l.workloads.ByUID(uid); w != nil && l.ref.Names(w) {
		return w, nil
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
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

// Certificate returns the pod's certificate of the moment.
func (l *local) Certificate(ctx context.Context) (*identity.Certificate, error) {
	w, err := l.Workload(ctx)
	if err != nil {
		return nil, err
	}
	l.hold(w.Identity())
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	c, err := l.certs.Get(ctx, w.Identity())
	if err != nil {
		return nil, fmt.Errorf("certificate of pod %s/%s: %w", l.ref.Namespace, l.ref.Name, err)
	}
	return c, nil
}

// hold keeps a certificate for id, and lets go of another identity's.
func (l *local) hold(id identity.Identity) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.holds == id {
		return
	}
	next := l.certs.Acquire(id)
	if l.let != nil {
		l.let()
	}
	l.holds, l.let = id, next
}

func (l *local) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.let != nil {
		l.let()
	}
}
