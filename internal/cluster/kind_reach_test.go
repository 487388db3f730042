package cluster

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"ambientlab/internal/docker/dockertest"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
)

// apiServer listens at address with a certificate for its host and gives the certificate.
func apiServer(t *testing.T, address string) (authority []byte, listens string) {
	t.Helper()
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		t.Error(err)
		return nil, ""
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Error(err)
		return nil, ""
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.ParseIP(host)},
		IsCA: true, BasicConstraintsValid: true,
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Error(err)
		return nil, ""
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Error(err)
		return nil, ""
	}
	server := &httptest.Server{
		Config: &http.Server{Handler: http.NotFoundHandler(), ErrorLog: log.New(io.Discard, "", 0)},
	}
	server.Listener = listener
	server.TLS = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{raw}, PrivateKey: key}}}
	server.StartTLS()
	t.Cleanup(server.Close)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: raw}), listener.Addr().String()
}

func TestGreet(t *testing.T) {
	authority, address := apiServer(t, "127.0.0.1:0")
	other, elsewhere := apiServer(t, "127.0.0.1:0")
	if err := errors.Join(greet(t.Context(), address, authority), greet(t.Context(), elsewhere, other)); err != nil {
		t.Error(err)
	}
	if err := greet(t.Context(), address, other); err == nil {
		t.Error("a server of another authority was taken for the API server")
	}
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	if err := greet(t.Context(), plain.Listener.Addr().String(), authority); err == nil {
		t.Error("a server without TLS was taken for the API server")
	}
	if err := greet(t.Context(), "127.0.0.1:1", authority); err == nil {
		t.Error("no server was taken for the API server")
	}
}

// TestAPIServerAddresses: where the published address does not answer, the node's own is used, in the kubeconfig too.
func TestAPIServerAddresses(t *testing.T) {
	f := newFixture(t)
	f.kind.greet = func(_ context.Context, address string, _ []byte) error {
		if address == "172.18.0.2:6443" {
			return nil
		}
		return errors.New("connection refused")
	}
	if err := f.kind.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	if info := f.state(Ready); info.Server != "https://172.18.0.2:6443" {
		t.Errorf("the server is %s", info.Server)
	}
}

// TestAPIServerElsewhere: an API server that answers in its container and not from here is a problem at once.
func TestAPIServerElsewhere(t *testing.T) {
	f := newFixture(t)
	f.kind.greet = func(context.Context, string, []byte) error { return errors.New("connection refused") }
	f.engine.Exec = func(container string, command []string) (string, string, int) {
		if container == "ambient-control-plane" && strings.Contains(strings.Join(command, " "), "get --raw=/livez") {
			return "ok", "", 0
		}
		return "", "unknown command", 1
	}
	err := f.kind.Create(t.Context())
	if !problem.Is(err, problem.APIServerElsewhere) || !strings.Contains(err.Error(), "https://127.0.0.1:40001") {
		t.Errorf("got %v", err)
	}
	f.untouched()
}

// TestAPIServerStarting: one that does not answer in its container either is waited for.
func TestAPIServerStarting(t *testing.T) {
	f := newFixture(t)
	tries := 0
	f.kind.greet = func(context.Context, string, []byte) error {
		if tries++; tries < 20 {
			return errors.New("connection refused")
		}
		return nil
	}
	f.engine.Exec = func(string, []string) (string, string, int) { return "", "connection refused", 1 }
	if err := f.kind.Create(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.state(Ready)
	if tries < 20 {
		t.Errorf("tried %d times", tries)
	}
}

// TestOutOfReach: while kind is still at work, nodes that run and cannot be reached end the creation.
func TestOutOfReach(t *testing.T) {
	for _, tt := range []struct {
		name           string
		published, own error
		problem        bool
	}{
		{name: "the published address answers", own: syscall.ENETUNREACH},
		{name: "the node has a route", published: syscall.ECONNREFUSED, own: syscall.ECONNREFUSED},
		{name: "no route to the node", published: syscall.ECONNREFUSED, own: syscall.ENETUNREACH, problem: true},
		{
			name: "no answer from the node", published: syscall.ECONNREFUSED, own: context.DeadlineExceeded,
			problem: true,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t)
			tries := make(chan string, 1000)
			f.kind.connect = func(_ context.Context, address string) error {
				tries <- address
				if address == "127.0.0.1:40001" {
					return tt.published
				}
				return tt.own
			}
			f.lib.create = func() error {
				f.engine.Add(dockertest.Container{
					Name: "ambient-control-plane", Network: "kind", IP: "172.18.0.2", Published: "127.0.0.1:40001",
					Mounts: []string{node.Mark{Lab: "ambient"}.MountPoint()},
					Labels: map[string]string{node.ClusterLabel: "ambient", node.RoleLabel: node.ControlPlane},
				})
				<-tries
				for tt.problem && !slices.Contains(f.engine.Removed(), "ambient-control-plane") {
					<-f.kind.after(0)
				}
				return nil
			}
			err := f.kind.Create(t.Context())
			if !tt.problem {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if !problem.Is(err, problem.APIServerElsewhere) || !strings.Contains(err.Error(), "172.18.0.2:6443") {
				t.Errorf("got %v", err)
			}
			f.untouched()
		})
	}
}
