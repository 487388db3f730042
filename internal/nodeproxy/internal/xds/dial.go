package xds

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/structpb"
)

// Dial connects to istiod at host:port, verifies its certificate by the roots in rootFile, and authenticates with the
// token in tokenFile. It reads both files again for each connection and call, because the kubelet replaces them.
// serverName is the name in istiod's certificate; if it is empty, the host of address is.
func Dial(address, serverName, rootFile, tokenFile string) (*grpc.ClientConn, error) {
	host, _, err := net.SplitHostPort(strings.TrimPrefix(address, "https://"))
	if err != nil {
		return nil, fmt.Errorf("address of the control plane: %w", err)
	}
	if serverName == "" {
		serverName = host
	}
	conf := &tls.Config{
		MinVersion: tls.VersionTLS12,
		ServerName: serverName,
		// VerifyConnection verifies with the roots that the file holds at that time: a tls.Config cannot change its
		// own.
		InsecureSkipVerify: true, //nolint:gosec // see above
		VerifyConnection: func(cs tls.ConnectionState) error {
			return verifyServer(cs, serverName, rootFile)
		},
	}
	conn, err := grpc.NewClient(
		// Without gRPC's own resolver, which keeps an old answer for half a minute after istiod's address has changed.
		"passthrough:///"+strings.TrimPrefix(address, "https://"),
		grpc.WithTransportCredentials(credentials.NewTLS(conf)),
		grpc.WithPerRPCCredentials(tokenCredentials(tokenFile)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{
				BaseDelay: 100 * time.Millisecond, Multiplier: 2, Jitter: 0.2,
				MaxDelay: 5 * time.Second,
			},
			MinConnectTimeout: 5 * time.Second,
		}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WithInitialWindowSize(1<<20),
		grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		return nil, fmt.Errorf("connection to the control plane at %s: %w", address, err)
	}
	return conn, nil
}

func verifyServer(cs tls.ConnectionState, name, rootFile string) error {
	pem, err := os.ReadFile(rootFile)
	if err != nil {
		return fmt.Errorf("roots of the control plane: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("roots of the control plane: no certificate in %s", rootFile)
	}
	intermediates := x509.NewCertPool()
	for _, c := range cs.PeerCertificates[1:] {
		intermediates.AddCert(c)
	}
	if _, err := cs.PeerCertificates[0].Verify(
		x509.VerifyOptions{DNSName: name, Roots: roots, Intermediates: intermediates}); err != nil {
		return fmt.Errorf("certificate of the control plane: %w", err)
	}
	return nil
}

// tokenCredentials is the path of a file with a bearer token.
type tokenCredentials string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t tokenCredentials) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	b, err := os.ReadFile(string(t))
	if err != nil {
		return nil, fmt.Errorf("the proxy's own token: %w", err)
	}
	if b = bytes.TrimSpace(b); len(b) == 0 {
		return nil, errors.New("the proxy's own token: file is empty")
	}
	return map[string]string{"authorization": "Bearer " + string(b)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: the token is never sent unencrypted.
func (t tokenCredentials) RequireTransportSecurity() bool { return true }

// Node describes the proxy to istiod, which recognises a node proxy by the first part of the ID.
func Node(ip, pod, namespace, nodeName string, meta map[string]string) *core.Node {
	fields := map[string]*structpb.Value{
		"NAME": structpb.NewStringValue(pod), "NAMESPACE": structpb.NewStringValue(namespace),
		"INSTANCE_IPS": structpb.NewStringValue(ip), "NODE_NAME": structpb.NewStringValue(nodeName),
	}
	for k, v := range meta {
		fields[k] = structpb.NewStringValue(v)
	}
	return &core.Node{
		Id:       fmt.Sprintf("ztunnel~%s~%s.%s~%s.svc.cluster.local", ip, pod, namespace, namespace),
		Metadata: &structpb.Struct{Fields: fields},
	}
}
