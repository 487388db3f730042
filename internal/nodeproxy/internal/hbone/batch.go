package hbone

import (
	"bufio"
	"errors"
	"net"
	"sync"
)

// Batch is a connection below TLS that can hold writes back and send them together, and that reads ahead. crypto/tls
// makes one system call for each record of 16 KiB; with a Batch below it a bulk transfer makes a fraction of them.
type Batch struct {
	net.Conn
	in *bufio.Reader

	mu      sync.Mutex
	holding bool
	held    []byte
}

// NewBatch makes a Batch of a connection. It holds nothing back unless an HBONE connection above it says so.
func NewBatch(c net.Conn) *Batch {
	return &Batch{Conn: c, in: bufio.NewReaderSize(c, 64<<10)}
}

// Read implements net.Conn.
func (b *Batch) Read(p []byte) (int, error) { return b.in.Read(p) }

// Write implements net.Conn.
func (b *Batch) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.holding {
		b.held = append(b.held, p...)
		return len(p), nil
	}
	return b.Conn.Write(p)
}

func (b *Batch) hold() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holding = true
}

func (b *Batch) flush() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.holding = false
	if len(b.held) == 0 {
		return nil
	}
	_, err := b.Conn.Write(b.held)
	b.held = b.held[:0]
	return err
}

// CloseWrite ends what is written, as crypto/tls asks for where it can.
func (b *Batch) CloseWrite() error {
	if c, ok := b.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}
