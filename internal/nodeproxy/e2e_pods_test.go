//go:build e2e

package main

import (
	"io"
	"os"
	"strings"
	"testing"
)

func TestPodsComeAndGo(t *testing.T) {
	l := newLab(t)
	a, b := l.meshed("appa"), l.meshed("appb")
	l.service(b)
	b.serve(appPort, echo)
	na := l.node("node-a", a)
	l.eventually("first connection", func() error { _, err := a.ask(b.app(), "x"); return ignoreRefused(err) })
	// Added later: acknowledged only when it is served, so its very first connection must work.
	if err := na.cni.Add(b.uid(), b.name, "default", b.name, b.file); err != nil {
		t.Fatal(err)
	}
	if got, err := a.ask(toVIP, "x"); got != "x" {
		t.Fatalf("first connection to a new pod: %q, %v", got, err)
	}
	t.Run("again the same", func(t *testing.T) {
		c, err := a.dial(toVIP)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "x")
		_, _ = c.Read(make([]byte, 1))
		if err := na.cni.Add(b.uid(), b.name, "default", b.name, b.file); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "y")
		if n, err := c.Read(make([]byte, 1)); n != 1 {
			t.Errorf("adding a pod once more broke its connection: %v", err)
		}
	})
	t.Run("a new sandbox", func(t *testing.T) {
		// The same pod in another network namespace.
		again := l.bare("sandbox")
		again.redirect()
		if err := na.cni.Add(b.uid(), b.name, "default", b.name, again.file); err != nil {
			t.Fatal(err)
		}
		if b.isServed() {
			t.Error("the old sandbox is still served")
		}
		if !again.isServed() {
			t.Error("the new sandbox is not served")
		}
	})
	t.Run("no network namespace", func(t *testing.T) {
		null, err := os.Open("/dev/null")
		if err != nil {
			t.Fatal(err)
		}
		defer null.Close()
		if err := na.cni.Add("bad", "bad", "default", "bad", null); err == nil ||
			!strings.Contains(err.Error(), "failure to start proxy") {
			t.Errorf("got %v", err)
		}
		if err := na.cni.Delete("bad"); err != nil {
			t.Error(err)
		}
		na.awaitReady()
	})
	t.Run("delete", func(t *testing.T) {
		outside := l.bare("outside")
		outside.serve(appPort, echo)
		c, err := a.dial(outside.app())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, "x")
		if _, err := c.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		if err := na.cni.Delete(a.uid()); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); !isReset(err) {
			t.Errorf("a deleted pod's connection: %v, want a reset", err)
		}
		if a.isServed() {
			t.Error("a deleted pod is still served")
		}
	})
}

// isServed reports whether a proxy listens in the pod: it resets a connection to its own port; the kernel refuses one
// if no proxy listens.
func (p *pod) isServed() bool {
	c, err := p.dial("127.0.0.1:15001")
	if err == nil {
		c.Close()
	}
	return err == nil || isReset(err)
}

func ignoreRefused(err error) error {
	if err != nil && (isReset(err) || strings.Contains(err.Error(), "refused")) {
		return nil
	}
	return err
}
