//go:build e2e

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkLoad measures two node proxies on one machine, and the same load without them. Processor time and
// allocations include those of the clients and servers.
func BenchmarkLoad(b *testing.B) {
	l := newLab(b)
	appa, appb := l.meshed("appa"), l.meshed("appb")
	plaina, plainb := l.bare("plaina"), l.bare("plainb")
	l.service(appb)
	for _, p := range []*pod{appb, plainb} {
		p.serve(appPort, echo)
		p.serve(8090, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	}
	l.node("node-a", appa)
	l.node("node-b", appb)
	l.eventually("first connection", func() error { _, err := appa.ask(toVIP, "x"); return err })

	for _, way := range []struct {
		name     string
		from, to *pod
	}{{"plain", plaina, plainb}, {"mesh", appa, appb}} {
		sink := netip.AddrPortFrom(way.to.ip, 8090).String()
		b.Run(way.name+"/requests-64", func(b *testing.B) { measure(b, 64, way.from.requests(way.to.app())) })
		b.Run(way.name+"/connections-64", func(b *testing.B) { measure(b, 64, way.from.connections(way.to.app())) })
		b.Run(way.name+"/bulk-4", func(b *testing.B) {
			b.SetBytes(bulk)
			measure(b, 4, way.from.flood(sink))
		})
	}
}

// bulk is how many bytes one operation of a flood sends.
const bulk = 256 << 10

// client does one operation at each call. close ends its connection, and waits until the server has read all of it.
type client struct {
	do    func() error
	close func() error
}

// measure shares b.N operations among parallel clients.
func measure(b *testing.B, parallel int, open func() (client, error)) {
	clients := make([]client, parallel)
	for i := range clients {
		c, err := open()
		if err != nil {
			b.Fatal(err)
		}
		clients[i] = c
	}
	var left atomic.Int64
	left.Store(int64(b.N))
	took := make([][]time.Duration, parallel)
	failures := make([]error, parallel)
	b.ReportAllocs()
	before := processorTime(b)
	b.ResetTimer()
	var wg sync.WaitGroup
	for i, c := range clients {
		wg.Go(func() {
			for failures[i] == nil && left.Add(-1) >= 0 {
				began := time.Now()
				failures[i] = c.do()
				took[i] = append(took[i], time.Since(began))
			}
			failures[i] = errors.Join(failures[i], c.close())
		})
	}
	wg.Wait()
	b.StopTimer()
	if err := errors.Join(failures...); err != nil {
		b.Fatal(err)
	}
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
	b.ReportMetric(float64((processorTime(b)-before).Nanoseconds())/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
}

func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// requests exchanges 1 KiB each way on one connection.
func (p *pod) requests(to string) func() (client, error) {
	return func() (client, error) {
		c, err := p.dial(to)
		if err != nil {
			return client{}, err
		}
		buf := make([]byte, 1024)
		return client{
			do: func() error {
				if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
					return err
				}
				if _, err := c.Write(buf); err != nil {
					return err
				}
				_, err := io.ReadFull(c, buf)
				return err
			},
			close: c.Close,
		}, nil
	}
}

// connections opens a connection for each exchange of one byte.
func (p *pod) connections(to string) func() (client, error) {
	return func() (client, error) {
		return client{
			do: func() error {
				got, err := p.ask(to, "x")
				if err == nil && got != "x" {
					err = fmt.Errorf("got %q", got)
				}
				return err
			},
			close: func() error { return nil },
		}, nil
	}
}

// flood sends on one connection.
func (p *pod) flood(to string) func() (client, error) {
	return func() (client, error) {
		c, err := p.dial(to)
		if err != nil {
			return client{}, err
		}
		buf := make([]byte, bulk)
		return client{
			do: func() error {
				if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
					return err
				}
				_, err := c.Write(buf)
				return err
			},
			close: func() error {
				defer c.Close()
				if err := errors.Join(c.SetDeadline(time.Now().Add(patience)), c.CloseWrite()); err != nil {
					return err
				}
				_, err := io.ReadAll(c)
				return err
			},
		}, nil
	}
}
