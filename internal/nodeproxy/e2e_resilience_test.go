//go:build e2e

package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestMain lets the test binary be the proxy, for the tests that kill one.
func TestMain(m *testing.M) {
	if os.Getenv("NODEPROXY_CHILD") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// load asks without pause from several clients until stop; it counts answers and failures.
type load struct {
	ok, failed atomic.Int64
	lastErr    atomic.Value
	end        context.CancelFunc
	wg         sync.WaitGroup
}

func (p *pod) load(to string, clients int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	ld := &load{end: cancel}
	for range clients {
		ld.wg.Go(func() {
			for ctx.Err() == nil {
				if got, err := p.ask(to, "x"); err != nil || got != "x" {
					ld.lastErr.Store(fmt.Sprintf("%q %v", got, err))
					ld.failed.Add(1)
					select { // a client that backs off a little, as clients do
					case <-ctx.Done():
					case <-time.After(5 * time.Millisecond):
					}
					continue
				}
				ld.ok.Add(1)
			}
		})
	}
	return ld
}

func (ld *load) stop() {
	ld.end()
	ld.wg.Wait()
}

// recovers waits for answers to come again and says how long that took.
func (ld *load) recovers(l *lab, what string) {
	l.t.Helper()
	began := time.Now()
	before := ld.ok.Load()
	l.eventually(what, func() error {
		if ld.ok.Load() < before+20 {
			return fmt.Errorf("only %d answers since; last failure: %v", ld.ok.Load()-before, ld.lastErr.Load())
		}
		return nil
	})
	l.t.Logf("%s: answers again after %s", what, time.Since(began).Round(time.Millisecond))
}

func TestRestarts(t *testing.T) {
	l := newLab(t)
	a, b := l.meshed("appa"), l.meshed("appb")
	l.service(b)
	b.serve(appPort, echo)
	na := l.node("node-a", a)
	l.node("node-b", b)
	l.eventually("first connection", func() error { _, err := a.ask(toVIP, "x"); return err })
	ld := a.load(toVIP, 4)
	defer ld.stop()

	t.Run("istio-cni away", func(t *testing.T) {
		na.cni.Stop()
		failed := ld.failed.Load()
		ld.recovers(l, "without istio-cni")
		if n := ld.failed.Load() - failed; n > 0 {
			t.Errorf("%d connections failed for istio-cni's sake: %v", n, ld.lastErr.Load())
		}
		if err := na.cni.Start(); err != nil {
			t.Fatal(err)
		}
		if err := na.cni.Synced(t.Context()); err != nil {
			t.Fatal(err)
		}
		na.awaitReady()
		if n := ld.failed.Load() - failed; n > 0 {
			t.Errorf("%d connections failed over istio-cni's return: %v", n, ld.lastErr.Load())
		}
	})
	t.Run("istiod away", func(t *testing.T) {
		failed := ld.failed.Load()
		addr := strings.Replace(l.istiod.Addr, "localhost", "127.0.0.1", 1)
		l.istiod.Stop()
		ld.recovers(l, "without istiod")
		// What changes meanwhile has to arrive afterwards, and what goes has to go.
		c := l.bare("appc")
		c.serve(appPort, echo)
		l.put(c.workload())
		resumed := l.istiod.Resumed()
		if err := l.istiod.Start(addr); err != nil {
			t.Fatal(err)
		}
		l.eventually("resumed streams", func() error {
			if n := l.istiod.Resumed() - resumed; n < 2 {
				return fmt.Errorf("%d streams resumed with the versions they held", n)
			}
			return nil
		})
		l.eventually("news in the dump", func() error {
			dump, err := get("http://" + na.set.AdminAddr + "/config_dump")
			if err == nil && !strings.Contains(dump, c.ip.String()) {
				err = fmt.Errorf("no workload %s", c.ip)
			}
			return err
		})
		if n := ld.failed.Load() - failed; n > 0 {
			t.Errorf("%d connections failed for istiod's sake: %v", n, ld.lastErr.Load())
		}
	})
	t.Run("proxy replaced", func(t *testing.T) {
		// A rolling update: the new one is ready before the old one goes. Existing pods are served all along.
		failed := ld.failed.Load()
		old, oldDone := na.cancel, na.done
		set := *na.set
		set.AdminAddr, set.StatsAddr, set.Healthy = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
		next := &node{l: l, name: na.name, set: &set, cni: na.cni}
		na.cni.Forget()
		next.start()
		defer next.stop()
		if err := na.cni.Synced(t.Context()); err != nil {
			t.Fatal(err)
		}
		old()
		if err := <-oldDone; err != nil {
			t.Error(err)
		}
		oldDone <- nil
		ld.recovers(l, "after a rolling update")
		t.Logf("failures in a rolling update: %d of %d", ld.failed.Load()-failed, ld.ok.Load())
	})
}

func TestKilledProxy(t *testing.T) {
	l := newLab(t)
	a, b := l.meshed("appa"), l.meshed("appb")
	l.service(b)
	b.serve(appPort, echo)
	na := l.node("node-a", a)
	l.node("node-b", b)
	// From here on the proxy of node-a is a process of its own.
	na.stop()
	child := func() *exec.Cmd {
		na.cni.Forget()
		cmd := exec.Command("/proc/self/exe", "proxy", "ztunnel")
		cmd.Env = append(na.env(), "NODEPROXY_CHILD=1")
		cmd.Stderr = os.Stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if err := na.cni.Synced(t.Context()); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	cmd := child()
	ld := a.load(toVIP, 4)
	defer ld.stop()
	ld.recovers(l, "the first process")
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if _, err := a.ask(toVIP, "x"); err == nil {
		t.Error("a connection went through without a proxy")
	}
	began := time.Now()
	cmd = child()
	ld.recovers(l, "after SIGKILL and a new process")
	t.Logf("from the start of the new process to answers: %s", time.Since(began).Round(time.Millisecond))
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

// TestRotation renews certificates of a few seconds under load: no connection may break, old or new.
func TestRotation(t *testing.T) {
	l := newLab(t)
	l.istiod.CA.TTL.Store(int64(4 * time.Second))
	a, b := l.meshed("appa"), l.meshed("appb")
	l.service(b)
	b.serve(appPort, echo)
	l.node("node-a", a)
	l.node("node-b", b)
	l.eventually("first connection", func() error { _, err := a.ask(toVIP, "x"); return err })
	long, err := a.dial(toVIP)
	if err != nil {
		t.Fatal(err)
	}
	ld := a.load(toVIP, 4)
	signed := l.istiod.CA.Signed.Load()
	buf := make([]byte, 4)
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for l.istiod.CA.Signed.Load() < signed+8 { // four renewals on each node: longer than any one certificate lives
		<-tick.C
		if err := long.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(long, "ping"); err != nil {
			t.Fatalf("long-lived connection: %v", err)
		}
		if _, err := io.ReadFull(long, buf); err != nil {
			t.Fatalf("long-lived connection: %v", err)
		}
	}
	ld.stop()
	if n := ld.failed.Load(); n > 0 {
		t.Errorf("%d of %d connections failed over renewals: %v", n, n+ld.ok.Load(), ld.lastErr.Load())
	}
	t.Logf("%d connections over %d renewals, no failure", ld.ok.Load(), l.istiod.CA.Signed.Load()-signed)
}
