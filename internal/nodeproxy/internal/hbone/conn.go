package hbone

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// Conn is one HTTP/2 connection, either side of it. Its methods are safe for concurrent use.
type Conn struct {
	nc      net.Conn
	client  bool
	handler func(*Request)
	pool    sync.Pool

	batch *Batch // below TLS; nil if nc is something else

	wmu  sync.Mutex
	out  out
	fr   *http2.Framer
	henc *hpack.Encoder
	hbuf bytes.Buffer

	mu       sync.Mutex
	streams  map[uint32]*Stream
	handlers int
	nextID   uint32
	lastPeer uint32
	sendWin  int64
	peer     peerSettings
	blocked  map[*Stream]struct{}
	draining bool
	err      error
	done     chan struct{}

	pong      chan struct{}
	received  uint32
	greeted   bool
	idleSince time.Time
}

type peerSettings struct {
	window  int64
	frame   int
	streams int
}

func newConn(nc net.Conn, client bool, handler func(*Request)) *Conn {
	c := &Conn{
		nc: nc, client: client, handler: handler,
		streams:   map[uint32]*Stream{},
		sendWin:   65535,
		peer:      peerSettings{window: 65535, frame: 16 << 10, streams: usedStreams},
		blocked:   map[*Stream]struct{}{},
		done:      make(chan struct{}),
		pong:      make(chan struct{}, 1),
		nextID:    1,
		idleSince: time.Now(),
	}
	c.pool.New = func() any { return new([16 << 10]byte) }
	c.out.room = sync.NewCond(&c.wmu)
	c.out.wake = make(chan struct{}, 1)
	if t, ok := nc.(interface{ NetConn() net.Conn }); ok {
		c.batch, _ = t.NetConn().(*Batch)
	}
	c.fr = http2.NewFramer(&c.out, bufio.NewReaderSize(nc, 64<<10))
	c.fr.SetReuseFrames()
	c.fr.SetMaxReadFrameSize(16 << 10)
	c.fr.MaxHeaderListSize = maxHeaderList
	c.fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	c.henc = hpack.NewEncoder(&c.hbuf)
	return c
}

// Client starts the client's side on a connection whose TLS handshake is done. Close ends it.
func Client(nc net.Conn) (*Conn, error) {
	c := newConn(nc, true, nil)
	if err := c.greet(); err != nil {
		return nil, errors.Join(err, nc.Close())
	}
	go c.sendLoop()
	go c.pingLoop()
	go func() { c.fail(c.readLoop()) }()
	return c, nil
}

// Serve runs the server's side until the connection ends and calls handler on a goroutine of its own for each request.
// It returns when every handler has returned. start, if not nil, gets the connection first, so that it can be drained.
func Serve(nc net.Conn, handler func(*Request), start func(*Conn)) error {
	var running sync.WaitGroup
	c := newConn(nc, false, func(r *Request) {
		running.Go(func() {
			defer r.stream.conn.handled()
			handler(r)
		})
	})
	if err := c.readPreface(); err != nil {
		return errors.Join(err, nc.Close())
	}
	if err := c.greet(); err != nil {
		return errors.Join(err, nc.Close())
	}
	if start != nil {
		start(c)
	}
	go c.sendLoop()
	go c.pingLoop()
	err := c.readLoop()
	c.fail(err)
	running.Wait()
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func (c *Conn) readPreface() error {
	var b [len(http2.ClientPreface)]byte
	if err := c.nc.SetReadDeadline(time.Now().Add(pingTimeout)); err != nil {
		return fmt.Errorf("limiting the wait for the preface: %w", err)
	}
	if _, err := io.ReadFull(c.nc, b[:]); err != nil {
		return fmt.Errorf("reading the HTTP/2 preface: %w", err)
	}
	if string(b[:]) != http2.ClientPreface {
		return errors.New("peer does not speak HTTP/2")
	}
	return c.nc.SetReadDeadline(time.Time{})
}

// greet sends the preface, our settings and the larger connection window.
func (c *Conn) greet() error {
	settings := []http2.Setting{
		{ID: http2.SettingInitialWindowSize, Val: streamWindow},
		{ID: http2.SettingMaxHeaderListSize, Val: maxHeaderList},
	}
	if c.client {
		settings = append(settings, http2.Setting{ID: http2.SettingEnablePush, Val: 0})
	} else {
		settings = append(settings, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: maxStreams})
	}
	return c.write(func() error {
		if c.client {
			if _, err := io.WriteString(&c.out, http2.ClientPreface); err != nil {
				return err
			}
		}
		if err := c.fr.WriteSettings(settings...); err != nil {
			return err
		}
		return c.fr.WriteWindowUpdate(0, connWindow-65535)
	})
}

// Usable says whether another stream may be opened now.
func (c *Conn) Usable() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.usable()
}

func (c *Conn) usable() bool {
	return c.err == nil && !c.draining && len(c.streams) < c.peer.streams && c.nextID < 1<<31-1
}

// Idle returns for how long the connection has carried no stream; zero if it carries one.
func (c *Conn) Idle(now time.Time) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.streams) > 0 {
		return 0
	}
	return now.Sub(c.idleSince)
}

// Done is closed when the connection has ended.
func (c *Conn) Done() <-chan struct{} { return c.done }

// Close ends the connection and resets every stream on it.
func (c *Conn) Close() { c.fail(ErrClosed) }

// Drain tells the peer to open no further stream, and closes the connection once the last one has ended.
func (c *Conn) Drain() {
	c.mu.Lock()
	c.draining = true
	last, empty := c.lastPeer, len(c.streams) == 0
	c.mu.Unlock()
	c.enqueue(func() error { return c.fr.WriteGoAway(last, http2.ErrCodeNo, nil) })
	if empty {
		c.endAfter(ErrClosed)
	}
}

// fail ends the connection with a cause; only the first cause counts.
func (c *Conn) fail(err error) {
	if err == nil {
		err = ErrClosed
	}
	c.mu.Lock()
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	c.err = err
	streams := c.streams
	c.streams = map[uint32]*Stream{}
	close(c.done)
	c.mu.Unlock()
	if c.batch != nil && !errors.Is(err, ErrClosed) {
		// Closing TLS says goodbye first, which may take seconds with a peer that no longer reads.
		_ = c.batch.Conn.Close()
	}
	_ = c.nc.Close()
	for _, s := range streams {
		s.abort(fmt.Errorf("HBONE connection lost: %w", err))
	}
}

// forget takes a finished stream off the connection.
func (c *Conn) forget(s *Stream) {
	c.mu.Lock()
	delete(c.streams, s.id)
	delete(c.blocked, s)
	empty := len(c.streams) == 0
	if empty {
		c.idleSince = time.Now()
	}
	last := c.draining && empty
	c.mu.Unlock()
	if last {
		c.endAfter(ErrClosed)
	}
}

// pingLoop closes the connection when the peer no longer answers.
func (c *Conn) pingLoop() {
	tick := time.NewTicker(pingEvery)
	defer tick.Stop()
	last := time.Now()
	for {
		select {
		case <-c.done:
			return
		case <-c.pong:
			last = time.Now()
		case <-tick.C:
			if time.Since(last) > pingEvery+pingTimeout {
				c.fail(errors.New("peer does not answer pings"))
				return
			}
			c.enqueue(func() error { return c.fr.WritePing(false, [8]byte{}) })
		}
	}
}
