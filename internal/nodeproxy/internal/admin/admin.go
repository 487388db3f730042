// Package admin serves readiness, metrics, and a dump of the proxy's configuration.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"
)

// Readiness answers readiness probes. It is ready when all of its parts are.
type Readiness struct {
	mu      sync.Mutex
	waiting map[string]bool
}

// NewReadiness returns a Readiness with parts that are not ready yet.
func NewReadiness(parts ...string) *Readiness {
	r := &Readiness{waiting: map[string]bool{}}
	for _, p := range parts {
		r.waiting[p] = true
	}
	return r
}

// Set sets whether a part is ready.
func (r *Readiness) Set(part string, ready bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if ready {
		delete(r.waiting, part)
	} else {
		r.waiting[part] = true
	}
}

// ServeHTTP answers 200 if all parts are ready, and 500 with the others if not.
func (r *Readiness) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	r.mu.Lock()
	var parts []string
	for p := range r.waiting {
		parts = append(parts, p)
	}
	r.mu.Unlock()
	if len(parts) > 0 {
		slices.Sort(parts)
		w.WriteHeader(http.StatusInternalServerError)
		fmt.Fprintf(w, "not ready, waiting for: %s\n", strings.Join(parts, ", "))
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
