//go:build e2e

package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"istio.io/istio/pkg/workloadapi"

	"ambientlab/nodeproxy/internal/istiotest"
	"ambientlab/nodeproxy/internal/netns"
)

// These tests run the whole proxy in real network namespaces with istio-cni's redirection rules, and with a simulated
// istio-cni and istiod. They need root or a user namespace, iproute2 and iptables, and fail without.

const (
	vip      = "10.96.0.10"
	appPort  = 8080
	svcPort  = 8000
	patience = 15 * time.Second
)

// lab is a bridge with pods on it, and a control plane.
type lab struct {
	t      testing.TB
	dir    string
	home   *os.File
	fabric string
	istiod *istiotest.Istiod
	pods   int
}

func newLab(t testing.TB) *lab {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("these tests create network namespaces: run them as root, or as root of a user namespace")
	}
	for _, tool := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Fatalf("these tests need %s: %v", tool, err)
		}
	}
	home, err := netns.Home()
	if err != nil {
		t.Fatal(err)
	}
	istiod, err := istiotest.NewIstiod()
	if err != nil {
		t.Fatal(err)
	}
	if err := istiod.Start(""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(istiod.Stop)
	l := &lab{t: t, dir: t.TempDir(), home: home, istiod: istiod, fabric: name(t, "fabric")}
	l.write("root-cert.pem", istiod.CA.PEM())
	l.write("istio-token", []byte(istiotest.Token+"\n"))
	l.namespace(l.fabric)
	l.ip("-n", l.fabric, "link", "add", "br0", "type", "bridge")
	l.ip("-n", l.fabric, "addr", "add", "10.77.0.1/24", "dev", "br0")
	l.ip("-n", l.fabric, "link", "set", "br0", "up")
	return l
}

func name(t testing.TB, part string) string {
	clean := strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return -1
	}, t.Name())
	return fmt.Sprintf("np-%d-%s-%s", os.Getpid(), clean, part)
}

func (l *lab) path(file string) string { return filepath.Join(l.dir, file) }

func (l *lab) write(file string, b []byte) {
	l.t.Helper()
	if err := os.WriteFile(l.path(file), b, 0o600); err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) command(args ...string) {
	l.t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		l.t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func (l *lab) ip(args ...string) {
	l.t.Helper()
	l.command(append([]string{"ip"}, args...)...)
}

func (l *lab) namespace(ns string) {
	l.t.Helper()
	l.ip("netns", "add", ns)
	l.t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	l.ip("-n", ns, "link", "set", "lo", "up")
}

// pod is a network namespace on the bridge.
type pod struct {
	l    *lab
	ns   *netns.Namespace
	file *os.File
	host string // name of the namespace
	name string
	ip   netip.Addr
	port int
}

// bare creates a pod that is not in the mesh.
func (l *lab) bare(podName string) *pod {
	l.t.Helper()
	l.pods++
	p := &pod{
		l: l, name: podName, host: name(l.t, podName), ip: netip.AddrFrom4([4]byte{10, 77, 0, byte(9 + l.pods)}),
		port: l.pods,
	}
	l.namespace(p.host)
	veth := fmt.Sprintf("v%d", l.pods)
	l.ip("-n", p.host, "link", "add", "eth0", "type", "veth", "peer", "name", veth, "netns", l.fabric)
	l.ip("-n", l.fabric, "link", "set", veth, "master", "br0", "up")
	l.ip("-n", p.host, "addr", "add", p.ip.String()+"/24", "dev", "eth0")
	l.ip("-n", p.host, "link", "set", "eth0", "up")
	l.ip("-n", p.host, "route", "add", "default", "via", "10.77.0.1")
	f, err := os.Open("/var/run/netns/" + p.host)
	if err != nil {
		l.t.Fatal(err)
	}
	p.file, p.ns = f, l.open(p.host)
	l.t.Cleanup(func() { f.Close() })
	return p
}

func (l *lab) open(ns string) *netns.Namespace {
	l.t.Helper()
	f, err := os.Open("/var/run/netns/" + ns)
	if err != nil {
		l.t.Fatal(err)
	}
	n, err := netns.New(l.home, f)
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { n.Close() })
	return n
}

// meshed creates a pod with istio-cni's redirection, and adds it to istiod.
func (l *lab) meshed(podName string) *pod {
	l.t.Helper()
	p := l.bare(podName)
	p.redirect()
	l.put(p.workload())
	return p
}

// redirect adds the rules that istio-cni adds to a pod (cni/pkg/iptables in istio.io/istio).
func (p *pod) redirect() {
	p.l.t.Helper()
	rule := func(args ...string) {
		p.l.command(append([]string{"ip", "netns", "exec", p.host, "iptables", "-w", "10", "-t"}, args...)...)
	}
	rule("mangle", "-A", "PREROUTING", "-m", "mark", "--mark", "0x539/0xfff", "-j", "CONNMARK", "--set-xmark",
		"0x111/0xfff")
	rule("mangle", "-A", "OUTPUT", "-m", "connmark", "--mark", "0x111/0xfff", "-j", "CONNMARK", "--restore-mark",
		"--nfmask", "0xffffffff", "--ctmask", "0xffffffff")
	rule("nat", "-A", "PREROUTING", "-s", "169.254.7.127", "-p", "tcp", "-j", "ACCEPT")
	rule("nat", "-A", "PREROUTING", "!", "-d", "127.0.0.1/32", "-p", "tcp", "!", "--dport", "15008", "-m", "mark", "!",
		"--mark", "0x539/0xfff", "-j", "REDIRECT", "--to-ports", "15006")
	rule("nat", "-A", "OUTPUT", "-d", "169.254.7.127", "-p", "tcp", "-j", "ACCEPT")
	rule("nat", "-A", "OUTPUT", "-p", "tcp", "-m", "mark", "--mark", "0x111/0xfff", "-j", "ACCEPT")
	rule("nat", "-A", "OUTPUT", "!", "-d", "127.0.0.1/32", "-o", "lo", "-j", "ACCEPT")
	rule("nat", "-A", "OUTPUT", "!", "-d", "127.0.0.1/32", "-p", "tcp", "-m", "mark", "!", "--mark", "0x539/0xfff",
		"-j", "REDIRECT", "--to-ports", "15001")
	p.l.ip("-n", p.host, "rule", "add", "fwmark", "0x111/0xfff", "pref", "32764", "lookup", "100")
	p.l.ip("-n", p.host, "route", "add", "local", "0.0.0.0/0", "dev", "lo", "table", "100")
}

func (p *pod) uid() string { return "uid-" + p.name }

func (p *pod) workload() *workloadapi.Workload {
	return &workloadapi.Workload{
		Uid: "Kubernetes//Pod/default/" + p.name, Name: p.name, Namespace: "default", ServiceAccount: p.name,
		Addresses: [][]byte{p.ip.AsSlice()}, TunnelProtocol: workloadapi.TunnelProtocol_HBONE, ClusterId: "Kubernetes",
		CanonicalName: p.name, CanonicalRevision: "v1", WorkloadName: p.name,
		WorkloadType: workloadapi.WorkloadType_DEPLOYMENT,
	}
}

func (l *lab) put(list ...proto.Message) {
	l.t.Helper()
	if err := l.istiod.Put(list...); err != nil {
		l.t.Fatal(err)
	}
}

func (p *pod) listen(port int) net.Listener {
	p.l.t.Helper()
	var ln net.Listener
	err := p.ns.Do(func() (err error) {
		ln, err = net.Listen("tcp4", fmt.Sprintf(":%d", port))
		return err
	})
	if err != nil {
		p.l.t.Fatal(err)
	}
	p.l.t.Cleanup(func() { ln.Close() })
	return ln
}

// serve runs handle for each connection to a port of the pod.
func (p *pod) serve(port int, handle func(*net.TCPConn)) {
	p.l.t.Helper()
	ln := p.listen(port)
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				handle(c.(*net.TCPConn))
			}()
		}
	}()
}

func echo(c *net.TCPConn) {
	_, _ = io.Copy(c, c)
	_ = c.CloseWrite()
}

func (p *pod) dial(addr string) (*net.TCPConn, error) {
	var c net.Conn
	err := p.ns.Do(func() (err error) {
		c, err = net.DialTimeout("tcp4", addr, 5*time.Second)
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

// ask sends a line, ends its half, and reads until the end.
func (p *pod) ask(addr, line string) (string, error) {
	c, err := p.dial(addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, line); err != nil {
		return "", err
	}
	if err := c.CloseWrite(); err != nil {
		return "", err
	}
	b, err := io.ReadAll(c)
	return string(b), err
}

// eventually repeats f until it succeeds, for conditions without an event to wait for.
func (l *lab) eventually(what string, f func() error) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), patience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			l.t.Fatalf("%s: %v", what, err)
		case <-tick.C:
		}
	}
}
