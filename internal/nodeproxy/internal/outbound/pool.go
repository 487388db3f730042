package outbound

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2"

	"ambientlab/nodeproxy/internal/hbone"
	"ambientlab/nodeproxy/internal/identity"
)

const (
	// dialTimeout bounds connecting and both handshakes.
	dialTimeout = 10 * time.Second
	attempts    = 3
)

// poolKey says what a pooled connection is for. A connection has one identity and accepts peers of certain identities,
// so two streams may share it only if all of that is the same.
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

// pool holds the HBONE connections of one pod.
type pool struct {
	mu     sync.Mutex
	slots  map[poolKey]*slot
	closed bool
}

type slot struct {
	conns   []*hbone.Conn
	dialing chan struct{} // closed when the dial under way has ended; nil if none is
	lastErr error
}

func newPool() *pool { return &pool{slots: map[poolKey]*slot{}} }

// errPoolClosed means that the pod is no longer served.
var errPoolClosed = errors.New("pool draining")

// connect opens a stream on a pooled connection, or on a new one.
func (p *pool) connect(
	ctx context.Context, k poolKey, dial dialer, authority string, header http.Header,
) (*hbone.ClientStream, error) {
	var last error
	for range attempts {
		c, fresh, err := p.get(ctx, k, dial)
		if err != nil {
			return nil, err
		}
		s, err := c.Connect(ctx, authority, header)
		if err == nil || ctx.Err() != nil || !repeatable(err, fresh) {
			return s, err
		}
		last = err
	}
	return nil, last
}

// repeatable reports whether another attempt to open a tunnel may succeed. No data of the client has been sent before a
// tunnel is open, so an attempt may always be repeated.
func repeatable(err error, fresh bool) bool {
	var refused hbone.StatusError
	var reset http2.StreamError
	switch {
	case errors.As(err, &refused):
		return false
	case errors.As(err, &reset):
		return reset.Code == http2.ErrCodeRefusedStream
	}
	// An older connection may have been lost, or its peer may be draining it.
	return !fresh
}

// get returns a connection with a stream reserved on it. Only one dial per key is under way at a time: several clients
// that connect at once share its outcome.
func (p *pool) get(ctx context.Context, k poolKey, dial dialer) (c *hbone.Conn, fresh bool, err error) {
	for {
		p.mu.Lock()
		if p.closed {
			p.mu.Unlock()
			return nil, false, errPoolClosed
		}
		s := p.slots[k]
		if s == nil {
			s = &slot{}
			p.slots[k] = s
		}
		for _, c := range s.conns {
			if c.Reserve() {
				p.mu.Unlock()
				return c, false, nil
			}
		}
		wait := s.dialing
		if wait == nil {
			s.dialing = make(chan struct{})
			p.mu.Unlock()
			c, err := p.dial(ctx, k, s, dial)
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

func (p *pool) dial(ctx context.Context, k poolKey, s *slot, dial dialer) (*hbone.Conn, error) {
	// Others wait for this dial, so it goes on if the client that started it disconnects.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), dialTimeout)
	defer cancel()
	c, err := dial(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	s.lastErr = err
	close(s.dialing)
	s.dialing = nil
	switch {
	case err == nil && p.closed:
		c.Close()
		err = errPoolClosed
	case err == nil && !c.Reserve():
		c.Close()
		err = errors.New("HBONE connection lost right after its handshake")
	}
	if err != nil {
		p.forget(k, s)
		return nil, err
	}
	s.conns = append(s.conns, c)
	go func() {
		<-c.Done()
		p.mu.Lock()
		defer p.mu.Unlock()
		s.conns = slices.DeleteFunc(s.conns, func(o *hbone.Conn) bool { return o == c })
		p.forget(k, s)
	}()
	return c, nil
}

// forget removes a slot that is empty; the caller holds mu.
func (p *pool) forget(k poolKey, s *slot) {
	if len(s.conns) == 0 && s.dialing == nil && p.slots[k] == s {
		delete(p.slots, k)
	}
}

// close ends every connection and opens no new one.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	var conns []*hbone.Conn
	for _, s := range p.slots {
		conns = append(conns, s.conns...)
	}
	p.mu.Unlock()
	for _, c := range conns {
		c.Close()
	}
}
