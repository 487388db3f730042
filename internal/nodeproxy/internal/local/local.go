// Package local holds what a served pod needs to know of itself.
package local

import (
	"context"
	"fmt"
	"sync"
	"time"

	"ambientlab/nodeproxy/internal/identity"
	"ambientlab/nodeproxy/internal/workload"
)

// timeout is how long a connection waits for the pod's workload or certificate: a pod may send before the control
// plane has sent its workload.
const timeout = 10 * time.Second

// Pod is a served pod's own workload and certificate.
type Pod struct {
	ref       workload.Ref
	workloads *workload.Store
	certs     *identity.Store

	mu     sync.Mutex
	uid    string
	id     identity.Identity
	done   func() // releases the certificate of id
	closed bool
}

// New returns the pod that ref names, and requests its certificate. Release releases it.
func New(ctx context.Context, ref workload.Ref, workloads *workload.Store, certs *identity.Store) *Pod {
	p := &Pod{ref: ref, workloads: workloads, certs: certs}
	// The certificate is requested before the first connection.
	go func() {
		if w, err := workloads.Local(ctx, p.ref); err == nil {
			p.acquire(w.Identity())
		}
	}()
	return p
}

// Workload returns the pod's workload; it waits until the control plane has sent it.
func (p *Pod) Workload(ctx context.Context) (*workload.Workload, error) {
	p.mu.Lock()
	uid := p.uid
	p.mu.Unlock()
	if w := p.workloads.ByUID(uid); w != nil && p.ref.Names(w) {
		return w, nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	w, err := p.workloads.Local(ctx, p.ref)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	p.uid = w.UID
	p.mu.Unlock()
	return w, nil
}

// Certificate returns the pod's current certificate; it waits until the CA has signed it.
func (p *Pod) Certificate(ctx context.Context) (*identity.Certificate, error) {
	w, err := p.Workload(ctx)
	if err != nil {
		return nil, err
	}
	p.acquire(w.Identity())
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	c, err := p.certs.Get(ctx, w.Identity())
	if err != nil {
		return nil, fmt.Errorf("certificate of pod %s/%s: %w", p.ref.Namespace, p.ref.Name, err)
	}
	return c, nil
}

// acquire acquires the certificate of id, and releases the one of another identity.
func (p *Pod) acquire(id identity.Identity) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.id == id {
		return
	}
	next := p.certs.Acquire(id)
	if p.done != nil {
		p.done()
	}
	p.id, p.done = id, next
}

// Release releases the certificate; no other one is acquired.
func (p *Pod) Release() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.done != nil {
		p.done()
	}
}
