//go:build e2e

package main

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"testing"
	"time"
)

// figures are what a run of parallel connections measured.
type figures struct {
	rounds   int
	p50, p99 time.Duration
	bytes    int64
	errors   []error
}

// exchange keeps connections of request and answer of 1 KiB busy for a while.
func (p *pod) exchange(to string, parallel int, during time.Duration) figures {
	var mu sync.Mutex
	var f figures
	var all []time.Duration
	var wg sync.WaitGroup
	end := time.Now().Add(during)
	for range parallel {
		wg.Go(func() {
			var own []time.Duration
			err := func() error {
				c, err := p.dial(to)
				if err != nil {
					return err
				}
				defer c.Close()
				if err := c.SetDeadline(end.Add(patience)); err != nil {
					return err
				}
				buf := make([]byte, 1024)
				for time.Now().Before(end) {
					began := time.Now()
					if _, err := c.Write(buf); err != nil {
						return err
					}
					if _, err := io.ReadFull(c, buf); err != nil {
						return err
					}
					own = append(own, time.Since(began))
				}
				return nil
			}()
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				f.errors = append(f.errors, err)
			}
			all = append(all, own...)
		})
	}
	wg.Wait()
	slices.Sort(all)
	if f.rounds = len(all); f.rounds > 0 {
		f.p50, f.p99 = all[len(all)/2], all[len(all)*99/100]
	}
	return f
}

// flood sends in bulk over parallel connections.
func (p *pod) flood(to string, parallel int, during time.Duration) figures {
	var mu sync.Mutex
	var f figures
	var wg sync.WaitGroup
	end := time.Now().Add(during)
	for range parallel {
		wg.Go(func() {
			c, err := p.dial(to)
			var sent int64
			if err == nil {
				defer c.Close()
				_ = c.SetDeadline(end.Add(patience))
				buf := make([]byte, 256<<10)
				for time.Now().Before(end) && err == nil {
					var n int
					n, err = c.Write(buf)
					sent += int64(n)
				}
				if err == nil {
					err = c.CloseWrite()
				}
				if err == nil {
					_, err = io.ReadAll(c) // until the sink has read all of it
				}
			}
			mu.Lock()
			defer mu.Unlock()
			f.bytes += sent
			if err != nil {
				f.errors = append(f.errors, err)
			}
		})
	}
	wg.Wait()
	return f
}

// TestLoad runs 64 connections at once through the mesh and past it, in one run. NODEPROXY_LOAD sets how long each of
// its four parts takes.
func TestLoad(t *testing.T) {
	during := 2 * time.Second
	if v := os.Getenv("NODEPROXY_LOAD"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		during = d
	}
	l := newLab(t)
	a, b := l.meshed("appa"), l.meshed("appb")
	c, d := l.bare("plaina"), l.bare("plainb")
	l.service(b)
	for _, p := range []*pod{b, d} {
		p.serve(appPort, echo)
		p.serve(8090, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	}
	l.node("node-a", a)
	l.node("node-b", b)
	l.eventually("first connection", func() error { _, err := a.ask(toVIP, "x"); return err })
	sink := func(p *pod) string { return netip.AddrPortFrom(p.ip, 8090).String() }

	const parallel = 64
	plain := c.exchange(d.app(), parallel, during)
	mesh := a.exchange(toVIP, parallel, during)
	plainBulk := c.flood(sink(d), 4, during)
	meshBulk := a.flood(sink(b), 4, during)
	for name, f := range map[string]figures{"plain": plain, "mesh": mesh, "plain bulk": plainBulk, "mesh bulk": meshBulk} {
		if len(f.errors) > 0 {
			t.Errorf("%s: %d errors, the first: %v", name, len(f.errors), f.errors[0])
		}
	}
	perSecond := func(f figures) string { return fmt.Sprintf("%.0f/s", float64(f.rounds)/during.Seconds()) }
	rate := func(f figures) string { return fmt.Sprintf("%.0f MB/s", float64(f.bytes)/during.Seconds()/1e6) }
	t.Logf("%d connections, 1 KiB each way, %s: plain %s p50 %s p99 %s; mesh %s p50 %s p99 %s", parallel, during,
		perSecond(plain), plain.p50, plain.p99, perSecond(mesh), mesh.p50, mesh.p99)
	t.Logf("4 connections in bulk: plain %s, mesh %s", rate(plainBulk), rate(meshBulk))
	t.Logf("ratios mesh to plain: rounds %.2f, p50 %.2f, p99 %.2f, bulk %.2f",
		float64(mesh.rounds)/float64(plain.rounds), float64(mesh.p50)/float64(plain.p50),
		float64(mesh.p99)/float64(plain.p99), float64(meshBulk.bytes)/float64(plainBulk.bytes))
}
