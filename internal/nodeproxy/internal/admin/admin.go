// Package admin serves readiness, metrics, and a dump of what the proxy knows.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"
)

// Readiness is ready when everything that it waits for is.
type Readiness struct {
	mu      sync.Mutex
	waiting map[string]bool
}

// NewReadiness makes one that waits for the named parts.
func NewReadiness(parts ...string) *Readiness {
	r := &Readiness{waiting: map[string]bool{}}
	for _, p := range parts {
		r.waiting[p] = true
	}
	return r
}

// Set notes whether a part is ready.
func (r *Readiness) Set(part string, ready bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ready {
		delete(r.waiting, part)
	} else {
		r.waiting[part] = true
	}
}

// ServeHTTP answers 200 when ready, and 500 with what is waited for when not.
func (r *Readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	var parts []string
	for p := range r.waiting {
		parts = append(parts, p)
	}
	r.mu.Unlock()
	if len(parts) > 0 {
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, "not ready, pending: %v\n", parts)
		return
	}
	_, _ = io.WriteString(w, "ready\n")
}

// Serve answers on addr until ctx ends. It returns as soon as the address is bound.
func Serve(ctx context.Context, addr string, h http.Handler) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return fmt.Errorf("serving %s: %w", addr, err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second}
	context.AfterFunc(ctx, func() { _ = srv.Close() })
	go func() {
		if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			_ = l.Close()
		}
	}()
	return nil
}
