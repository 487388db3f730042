package telemetry

import (
	"context"
	"log/slog"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ambientlab/nodeproxy/internal/identity"
	"ambientlab/nodeproxy/internal/workload"
)

// Info describes a connection when it opens. Unknown fields are zero.
type Info struct {
	Outbound bool
	// Src and Dst are the ends of the hop; Target is the authority of the CONNECT request.
	Src, Dst netip.AddrPort
	Target   string
	Source   *workload.Workload
	// SourceID is set if mutual TLS proves the identity of the source.
	SourceID    identity.Identity
	Destination *workload.Workload
	Service     *workload.Service
}

// Connection is one open connection. Close it exactly once.
type Connection struct {
	t       *Telemetry
	info    Info
	started time.Time

	request, response       atomic.Uint64
	requestSum, responseSum prometheus.Counter
}

// Flag is ztunnel's code for the reason why a connection failed.
type Flag string

// The flags that the node proxy uses.
const (
	FlagNone    Flag = "-"
	FlagDenied  Flag = "DENY"
	FlagConnect Flag = "CONNECT"
	FlagTLS     Flag = "TLS_FAILURE"
)

// Open counts a connection.
func (t *Telemetry) Open(info Info) *Connection {
	l := info.labels(string(FlagNone))
	t.opened.With(l).Inc()
	c := &Connection{t: t, info: info, started: time.Now(), requestSum: t.received.With(l), responseSum: t.sent.With(l)}
	t.log.Debug("connection opened", c.fields()...)
	return c
}

// Request counts bytes from the client to the server.
func (c *Connection) Request(n int) {
	c.request.Add(uint64(n))
	c.requestSum.Add(float64(n))
}

// Response counts bytes from the server to the client.
func (c *Connection) Response(n int) {
	c.response.Add(uint64(n))
	c.responseSum.Add(float64(n))
}

// Close counts the end and writes the access log. err is the error that ended the connection, or nil.
func (c *Connection) Close(err error, flag Flag) {
	l := c.info.labels(string(flag))
	c.t.closed.With(l).Inc()
	level := slog.LevelInfo
	sent, recv := c.response.Load(), c.request.Load()
	if c.info.Outbound {
		sent, recv = recv, sent
	}
	fields := append(c.fields(), "bytes_sent", sent, "bytes_recv", recv,
		"duration", strconv.FormatInt(time.Since(c.started).Milliseconds(), 10)+"ms")
	if flag != FlagNone {
		c.t.failed.With(l).Inc()
	}
	if err != nil {
		level = slog.LevelError
		fields = append(fields, "error", err.Error())
	}
	c.t.log.Log(context.Background(), level, "connection complete", fields...)
}

// Refused logs a connection that was refused before it could be counted.
func (t *Telemetry) Refused(outbound bool, src, dst netip.AddrPort, err error) {
	t.log.Warn("connection failed", "src.addr", src.String(), "dst.addr", dst.String(),
		"direction", direction(outbound), "error", err.Error())
}

func direction(outbound bool) string {
	if outbound {
		return "outbound"
	}
	return "inbound"
}

func (c *Connection) fields() []any {
	i := &c.info
	f := make([]any, 0, 32)
	add := func(name, value string) {
		if value != "" {
			f = append(f, name, value)
		}
	}
	side := func(prefix string, w *workload.Workload, id identity.Identity) {
		if w != nil {
			add(prefix+".workload", w.Name)
			add(prefix+".namespace", w.Namespace)
			add(prefix+".cluster", w.ClusterID)
		}
		add(prefix+".identity", id.String())
	}
	add("src.addr", i.Src.String())
	side("src", i.Source, i.SourceID)
	add("dst.addr", i.Dst.String())
	add("dst.hbone_addr", i.Target)
	if i.Service != nil {
		add("dst.service", i.Service.Hostname)
	}
	var dst identity.Identity
	if i.mutual() && i.Destination != nil {
		dst = i.Destination.Identity()
	}
	side("dst", i.Destination, dst)
	add("direction", direction(i.Outbound))
	return f
}
