//go:build e2e

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"ambientlab/nodeproxy/internal/istiotest"
	"ambientlab/nodeproxy/internal/settings"
)

// node is one node proxy with its istio-cni.
type node struct {
	l      *lab
	name   string
	cni    *istiotest.CNI
	set    *settings.Settings
	cancel context.CancelFunc
	done   chan error
}

// node starts a proxy that serves pods.
func (l *lab) node(nodeName string, pods ...*pod) *node {
	l.t.Helper()
	n := &node{l: l, name: nodeName, cni: istiotest.NewCNI(l.path(nodeName + ".sock"))}
	for _, p := range pods {
		if err := n.cni.Add(p.uid(), p.name, "default", p.name, p.file); err != nil {
			l.t.Fatal(err)
		}
	}
	if err := n.cni.Start(); err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(n.cni.Stop)
	set, err := settings.Parse([]string{"proxy", "ztunnel"}, n.env())
	if err != nil {
		l.t.Fatal(err)
	}
	n.set = set
	n.start()
	l.t.Cleanup(n.stop)
	n.awaitReady()
	return n
}

func (n *node) env() []string {
	level := "info"
	if _, ok := n.l.t.(*testing.B); ok {
		level = "error" // the access log would run into the benchmark's results
	}
	base := 20000 + 10*len(n.name) + int(n.name[len(n.name)-1])
	return []string{
		"XDS_ADDRESS=" + n.l.istiod.Addr, "CA_ADDRESS=" + n.l.istiod.Addr, "NODE_NAME=" + n.name,
		"POD_NAME=ztunnel-" + n.name,
		"POD_NAMESPACE=istio-system", "INSTANCE_IP=10.0.0.1", "ISTIO_META_CLUSTER_ID=Kubernetes", "INPOD_ENABLED=true",
		"INPOD_UDS=" + n.l.path(n.name+".sock"), "XDS_ROOT_CA=" + n.l.path("root-cert.pem"),
		"AUTH_TOKEN=" + n.l.path("istio-token"),
		fmt.Sprintf("ADMIN_ADDR=127.0.0.1:%d", base), fmt.Sprintf("STATS_ADDR=127.0.0.1:%d", base+1000),
		fmt.Sprintf("READINESS_ADDR=127.0.0.1:%d", base+2000), "TERMINATION_GRACE_PERIOD_SECONDS=2",
		"RUST_LOG=" + level,
	}
}

func (n *node) start() {
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.done = cancel, make(chan error, 1)
	done := n.done
	go func() { done <- run(ctx, n.set) }()
}

func (n *node) stop() {
	n.cancel()
	if err := <-n.done; err != nil {
		n.l.t.Errorf("proxy of %s: %v", n.name, err)
	}
	n.done <- nil
}

func (n *node) awaitReady() {
	n.l.t.Helper()
	n.l.eventually("readiness of "+n.name, func() error {
		body, err := get("http://" + n.set.Healthy + "/healthz/ready")
		if err != nil {
			return err
		}
		if body != "ready\n" {
			return errors.New(body)
		}
		return nil
	})
}

func get(url string) (string, error) {
	c := http.Client{Timeout: 2 * time.Second}
	resp, err := c.Get(url)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return string(b), err
}

// isReset says whether a connection was torn down rather than ended.
func isReset(err error) bool { return errors.Is(err, unix.ECONNRESET) }
