package hbone

import (
	"errors"
	"strconv"

	"golang.org/x/net/http2"
)

// readLoop handles frames until the connection ends, and tells the peer why if it broke the protocol.
func (c *Conn) readLoop() error {
	for {
		f, err := c.fr.ReadFrame()
		if err == nil {
			err = c.handle(f)
		}
		var streamErr http2.StreamError
		var connErr http2.ConnectionError
		switch {
		case err == nil:
		case errors.As(err, &streamErr):
			c.refuse(streamErr.StreamID, streamErr.Code)
		case errors.As(err, &connErr):
			c.mu.Lock()
			last := c.lastPeer
			c.mu.Unlock()
			c.enqueue(func() error { return c.fr.WriteGoAway(last, http2.ErrCode(connErr), nil) })
			c.endAfter(err)
			<-c.done
			return err
		default:
			return err
		}
	}
}

// refuse resets a stream that may or may not be known.
func (c *Conn) refuse(id uint32, code http2.ErrCode) {
	if s := c.stream(id); s != nil {
		s.Reset(code)
		return
	}
	c.mu.Lock()
	if !c.client && id%2 == 1 && id > c.lastPeer {
		c.lastPeer = id
	}
	c.mu.Unlock()
	c.enqueue(func() error { return c.fr.WriteRSTStream(id, code) })
}

func (c *Conn) stream(id uint32) *Stream {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.streams[id]
}

func (c *Conn) handle(f http2.Frame) error {
	if !c.greeted {
		if _, ok := f.(*http2.SettingsFrame); !ok {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		c.greeted = true
	}
	switch f := f.(type) {
	case *http2.SettingsFrame:
		return c.onSettings(f)
	case *http2.MetaHeadersFrame:
		if c.client {
			return c.onResponse(f)
		}
		return c.onRequest(f)
	case *http2.DataFrame:
		return c.onData(f)
	case *http2.WindowUpdateFrame:
		return c.onWindow(f)
	case *http2.RSTStreamFrame:
		c.onReset(f)
	case *http2.PingFrame:
		c.onPing(f)
	case *http2.GoAwayFrame:
		c.onGoAway(f)
	case *http2.PushPromiseFrame:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	return nil
}

func (c *Conn) onSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if f.HasDuplicates() {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	table := uint32(0)
	hasTable := false
	err := f.ForeachSetting(func(s http2.Setting) error {
		if err := s.Valid(); err != nil {
			return err
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		switch s.ID {
		case http2.SettingInitialWindowSize:
			delta := int64(s.Val) - c.peer.window
			c.peer.window = int64(s.Val)
			for _, st := range c.streams {
				if st.sendWin += delta; st.sendWin > 1<<31-1 {
					return http2.ConnectionError(http2.ErrCodeFlowControl)
				}
			}
			c.wakeBlocked()
		case http2.SettingMaxFrameSize:
			c.peer.frame = int(s.Val)
		case http2.SettingMaxConcurrentStreams:
			c.peer.streams = int(min(s.Val, usedStreams))
		case http2.SettingHeaderTableSize:
			table, hasTable = s.Val, true
		}
		return nil
	})
	if err != nil {
		return err
	}
	c.enqueue(func() error {
		if hasTable {
			c.henc.SetMaxDynamicTableSizeLimit(table)
		}
		return c.fr.WriteSettingsAck()
	})
	return nil
}

func (c *Conn) onRequest(f *http2.MetaHeadersFrame) error {
	if s := c.stream(f.StreamID); s != nil {
		// Trailers: they carry nothing for a tunnel, but must end it.
		if !f.StreamEnded() {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		s.endRemote()
		return nil
	}
	c.mu.Lock()
	if f.StreamID%2 == 0 || f.StreamID <= c.lastPeer {
		c.mu.Unlock()
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	c.lastPeer = f.StreamID
	if c.draining || len(c.streams) >= maxStreams || f.Truncated {
		c.mu.Unlock()
		c.refuse(f.StreamID, http2.ErrCodeRefusedStream)
		return nil
	}
	if c.handlers >= 2*maxStreams {
		// Streams opened and reset faster than their handlers end: the "rapid reset" attack.
		c.mu.Unlock()
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	s := c.newStream(f.StreamID)
	c.streams[s.id] = s
	c.handlers++
	c.mu.Unlock()
	req := &Request{Method: f.PseudoValue("method"), Authority: f.PseudoValue("authority"), stream: s}
	for _, h := range f.RegularFields() {
		req.Headers = append(req.Headers, Header{Name: h.Name, Value: h.Value})
	}
	if f.StreamEnded() {
		s.endRemote()
	}
	c.handler(req)
	return nil
}

// handled gives the place of a request's handler back.
func (c *Conn) handled() {
	c.mu.Lock()
	c.handlers--
	c.mu.Unlock()
}

func (c *Conn) onResponse(f *http2.MetaHeadersFrame) error {
	s := c.stream(f.StreamID)
	if s == nil {
		c.mu.Lock()
		unknown := f.StreamID >= c.nextID || f.StreamID%2 == 0
		c.mu.Unlock()
		if unknown {
			return http2.ConnectionError(http2.ErrCodeProtocol)
		}
		return nil
	}
	if status := f.PseudoValue("status"); status != "" {
		code, err := strconv.Atoi(status)
		if err != nil || code < 100 || code > 999 || f.Truncated {
			return http2.StreamError{StreamID: f.StreamID, Code: http2.ErrCodeProtocol}
		}
		if code >= 200 {
			s.answer(code)
		}
	}
	if f.StreamEnded() {
		s.endRemote()
	}
	return nil
}
