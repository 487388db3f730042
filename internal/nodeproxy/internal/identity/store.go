package identity

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	signTimeout = 10 * time.Second
	retryFirst  = 100 * time.Millisecond
	retryMost   = 15 * time.Second
	// soonest keeps a CA that hands out certificates of a few seconds from being asked without a pause.
	soonest = time.Second
)

// Signer certifies identities.
type Signer interface {
	Sign(ctx context.Context, id Identity) (*Certificate, error)
}

// Store keeps one certificate per identity that a pod of this node uses, and renews each at half of its life.
type Store struct {
	signer Signer
	log    *slog.Logger
	now    func() time.Time

	mu      sync.Mutex
	entries map[Identity]*entry
}

type entry struct {
	users  int
	cancel context.CancelFunc
	ready  chan struct{} // closed once cert is set
	cert   *Certificate
	err    error
}

// NewStore makes an empty store.
func NewStore(signer Signer, log *slog.Logger, now func() time.Time) *Store {
	return &Store{signer: signer, log: log, now: now, entries: map[Identity]*entry{}}
}

// Acquire starts to hold a certificate for id until the returned function is called, once. Several users of an
// identity share it.
func (s *Store) Acquire(id Identity) (release func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entries[id]
	if e == nil {
		ctx, cancel := context.WithCancel(context.Background())
		e = &entry{cancel: cancel, ready: make(chan struct{})}
		s.entries[id] = e
		go s.maintain(ctx, id, e)
	}
	e.users++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if e.users--; e.users == 0 {
			e.cancel()
			delete(s.entries, id)
		}
	})
}

// Get returns the current certificate of an acquired identity, waiting for the first one as long as ctx allows.
func (s *Store) Get(ctx context.Context, id Identity) (*Certificate, error) {
	s.mu.Lock()
	e := s.entries[id]
	s.mu.Unlock()
	if e == nil {
		return nil, fmt.Errorf("no pod of this node runs as %s", id)
	}
	select {
	case <-e.ready:
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		if e.err != nil {
			return nil, fmt.Errorf("waiting for a certificate: %w", e.err)
		}
		return nil, fmt.Errorf("waiting for a certificate for %s: %w", id, context.Cause(ctx))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.now().Before(e.cert.NotAfter()) {
		return nil, fmt.Errorf("certificate of %s ended at %s and is not renewed: %v", id, e.cert.NotAfter().Format(time.RFC3339), e.err)
	}
	return e.cert, nil
}

// State is one identity as the admin page shows it.
type State struct {
	Identity    Identity
	Certificate *Certificate
	Err         error
}

// States returns what is held, ordered by identity.
func (s *Store) States() []State {
	s.mu.Lock()
	defer s.mu.Unlock()
	var states []State
	for id, e := range s.entries {
		states = append(states, State{Identity: id, Certificate: e.cert, Err: e.err})
	}
	slices.SortFunc(states, func(a, b State) int { return strings.Compare(a.Identity.String(), b.Identity.String()) })
	return states
}

// maintain fetches and renews until ctx ends. A failure keeps the certificate that is held, as it is still good.
func (s *Store) maintain(ctx context.Context, id Identity, e *entry) {
	pause := retryFirst
	for ctx.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, signTimeout)
		cert, err := s.signer.Sign(attempt, id)
		cancel()
		wait := pause
		s.mu.Lock()
		e.err = err
		if err == nil {
			first := e.cert == nil
			e.cert = cert
			if first {
				close(e.ready)
			}
		}
		s.mu.Unlock()
		if err == nil {
			pause = retryFirst
			wait = max(renewIn(cert, s.now()), soonest)
			s.log.Info("certificate ready", "identity", id.String(), "expires", cert.NotAfter(), "renewIn", wait.String())
		} else if ctx.Err() == nil {
			s.log.Warn("certificate not signed, will retry", "identity", id.String(), "error", err, "in", wait.String())
			pause = min(pause*2, retryMost)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// renewIn is how long to wait before renewal: until half of the certificate's life has passed.
func renewIn(c *Certificate, now time.Time) time.Duration {
	half := c.NotBefore().Add(c.NotAfter().Sub(c.NotBefore()) / 2)
	return half.Sub(now)
}
