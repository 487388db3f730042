package outbound

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"ambientlab/nodeproxy/internal/hbone"
	"ambientlab/nodeproxy/internal/identity"
)

const (
	// dialTimeout bounds connecting and both handshakes.
	dialTimeout = 10 * time.Second
	// idleTimeout is how long a connection without streams is kept.
	idleTimeout = 5 * time.Minute
	sweepEvery  = 30 * time.Second
	attempts    = 3
)

// poolKey says what a pooled connection is for. A connection speaks with one identity to peers that may have certain
// identities, so all of that has to be the same before two streams share one.
type poolKey struct {
	source identity.Identity
	dst    netip.AddrPort
	peers  string
}

func newKey(source identity.Identity, dst netip.AddrPort, peers []identity.Identity) poolKey {
	names := make([]string, len(peers))
	for i, p := range peers {
		names[i] = p.String()
	}
	return poolKey{source: source, dst: dst, peers: strings.Join(names, " ")}
}

// dialer opens an HBONE connection.
type dialer func(ctx context.Context) (*hbone.Conn, error)

// pool holds HBONE connections of one pod.
type pool struct {
	mu    sync.Mutex
	slots map[poolKey]*slot
	shut  bool
	stop  chan struct{}
}

type slot struct {
	conns   []*hbone.Conn
	dialing chan struct{} // closed when the dial under way has ended; nil if none is
	lastErr error
}

func newPool() *pool {
	p := &pool{slots: map[poolKey]*slot{}, stop: make(chan struct{})}
	go p.sweep()
	return p
}

// errShut says that the pod is no longer served.
var errShut = errors.New("pool draining")

// connect opens a stream on a pooled connection, or on a new one.
func (p *pool) connect(ctx context.Context, k poolKey, dial dialer, authority string, headers []hbone.Header) (*hbone.Stream, error) {
	var last error
	for range attempts {
		c, fresh, err := p.get(ctx, k, dial)
		if err != nil {
			return nil, err
		}
		s, err := c.Connect(ctx, authority, headers...)
		if err == nil {
			return s, nil
		}
		last = err
		var refused hbone.StatusError
		var reset hbone.ResetError
		switch {
		case errors.As(err, &refused), ctx.Err() != nil:
			return nil, err
		case errors.Is(err, hbone.ErrUnavailable):
			// Full, or going away: the request went nowhere.
		case errors.As(err, &reset), fresh:
			return nil, err
		default:
			// An older connection that turned out to be dead. No byte of the client's has been sent on it yet,
			// so another may be tried.
		}
	}
	return nil, last
}

// get returns a connection with room for a stream. Only one dial per key is under way at a time: a burst of new
// connections shares its outcome.
func (p *pool) get(ctx context.Context, k poolKey, dial dialer) (c *hbone.Conn, fresh bool, err error) {
	for {
		p.mu.Lock()
		if p.shut {
			p.mu.Unlock()
			return nil, false, errShut
		}
		s := p.slots[k]
		if s == nil {
			s = &slot{}
			p.slots[k] = s
		}
		for _, c := range s.conns {
			if c.Usable() {
				p.mu.Unlock()
				return c, false, nil
			}
		}
		wait := s.dialing
		if wait == nil {
			s.dialing = make(chan struct{})
			p.mu.Unlock()
			c, err := p.dial(ctx, s, dial)
			return c, true, err
		}
		p.mu.Unlock()
		select {
		case <-wait:
		case <-ctx.Done():
			return nil, false, fmt.Errorf("waiting for a pooled connection: %w", context.Cause(ctx))
		}
		p.mu.Lock()
		err := s.lastErr
		p.mu.Unlock()
		if err != nil {
			return nil, false, err
		}
	}
}

func (p *pool) dial(ctx context.Context, s *slot, dial dialer) (*hbone.Conn, error) {
	// Others wait for this dial, so the one who began it must not take it with him when his client goes.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialTimeout)
	defer cancel()
	c, err := dial(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	s.lastErr = err
	close(s.dialing)
	s.dialing = nil
	if err != nil {
		return nil, err
	}
	if p.shut {
		c.Close()
		return nil, errShut
	}
	s.conns = append(s.conns, c)
	go func() {
		<-c.Done()
		p.remove(s, c)
	}()
	return c, nil
}

func (p *pool) remove(s *slot, c *hbone.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, o := range s.conns {
		if o == c {
			s.conns = append(s.conns[:i], s.conns[i+1:]...)
			return
		}
	}
}

// sweep closes connections that nobody has used for a while, and forgets empty slots.
func (p *pool) sweep() {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-tick.C:
			p.mu.Lock()
			for k, s := range p.slots {
				for _, c := range s.conns {
					if c.Idle(now) > idleTimeout {
						c.Drain()
					}
				}
				if len(s.conns) == 0 && s.dialing == nil {
					delete(p.slots, k)
				}
			}
			p.mu.Unlock()
		}
	}
}

// drain lets streams end and takes no new ones.
func (p *pool) drain() { p.each(func(c *hbone.Conn) { c.Drain() }) }

// wait returns once every drained connection has sent its last byte, or when ctx ends.
func (p *pool) wait(ctx context.Context) {
	p.each(func(c *hbone.Conn) {
		select {
		case <-c.Done():
		case <-ctx.Done():
		}
	})
}

// close ends every connection.
func (p *pool) close() { p.each(func(c *hbone.Conn) { c.Close() }) }

func (p *pool) each(f func(*hbone.Conn)) {
	p.mu.Lock()
	if !p.shut {
		p.shut = true
		close(p.stop)
	}
	var conns []*hbone.Conn
	for _, s := range p.slots {
		conns = append(conns, s.conns...)
	}
	p.mu.Unlock()
	for _, c := range conns {
		f(c)
	}
}
