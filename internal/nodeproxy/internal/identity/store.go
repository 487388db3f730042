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
	retryMin    = 100 * time.Millisecond
	retryMax    = 15 * time.Second
	// renewMin is the shortest time until a renewal, for certificates with a life of a few seconds.
	renewMin = time.Second
)

// Signer signs certificates for identities.
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

// NewStore returns an empty store.
func NewStore(signer Signer, log *slog.Logger, now func() time.Time) *Store {
	return &Store{signer: signer, log: log, now: now, entries: map[Identity]*entry{}}
}

// Acquire requests a certificate for id and renews it until release is called. Several users of an identity share one
// certificate.
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

// Get returns the current certificate of an acquired identity. It waits for the first one until ctx ends.
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
		return nil, fmt.Errorf("certificate of %s expired at %s and was not renewed: %v", id,
			e.cert.NotAfter().Format(time.RFC3339), e.err)
	}
	return e.cert, nil
}

// State is the state of one identity, for the admin page.
type State struct {
	Identity    Identity
	Certificate *Certificate
	Err         error
}

// States returns the state of each acquired identity, ordered by identity.
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

// maintain requests and renews a certificate until ctx ends. After a failure the previous certificate stays in use.
func (s *Store) maintain(ctx context.Context, id Identity, e *entry) {
	pause := retryMin
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
			pause = retryMin
			wait = max(renewIn(cert, s.now()), renewMin)
			s.log.Info("certificate ready", "identity", id.String(), "expires", cert.NotAfter(), "renewIn",
				wait.String())
		} else if ctx.Err() == nil {
			s.log.Warn("requesting a certificate failed, will retry", "identity", id.String(), "error", err, "in",
				wait.String())
			pause = min(pause*2, retryMax)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
	}
}

// renewIn returns the time until half of the certificate's life has passed.
func renewIn(c *Certificate, now time.Time) time.Duration {
	half := c.NotBefore().Add(c.NotAfter().Sub(c.NotBefore()) / 2)
	return half.Sub(now)
}
