// Package istiotest simulates istiod and istio-cni, as far as a node proxy sees them. Tests alone import it.
package istiotest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	caapi "istio.io/api/security/v1alpha1"
)

// CA is a certificate authority. It implements istiod's certificate service.
type CA struct {
	caapi.UnimplementedIstioCertificateServiceServer

	Root *x509.Certificate
	key  *ecdsa.PrivateKey
	// TTL is the life of certificates that it signs through gRPC, in nanoseconds.
	TTL atomic.Int64
	// Signed counts the certificates that it has signed through gRPC; Refuse makes it refuse to sign.
	Signed atomic.Int64
	Refuse atomic.Bool
}

// NewCA returns an authority with a new root.
func NewCA() (*CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{Organization: []string{"cluster.local"}},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	ca := &CA{Root: root, key: key}
	ca.TTL.Store(int64(time.Hour))
	return ca, nil
}

// PEM returns the root certificate.
func (c *CA) PEM() []byte { return encode(c.Root.Raw) }

func encode(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// Leaf is the content of a certificate.
type Leaf struct {
	URIs      []string
	DNS       string
	NotBefore time.Time
	NotAfter  time.Time
}

// Sign signs a certificate for a key.
func (c *CA) Sign(l Leaf, pub crypto.PublicKey) ([]byte, error) {
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: l.NotBefore, NotAfter: l.NotAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, s := range l.URIs {
		u, err := url.Parse(s)
		if err != nil {
			return nil, err
		}
		tmpl.URIs = append(tmpl.URIs, u)
	}
	if l.DNS != "" {
		tmpl.DNSNames = []string{l.DNS}
		tmpl.IPAddresses = []net.IP{net.IPv4(127, 0, 0, 1)}
	}
	return x509.CreateCertificate(rand.Reader, tmpl, c.Root, pub, c.key)
}

// Certificate returns a new key and its certificate.
func (c *CA) Certificate(l Leaf) (tls.Certificate, error) {
	if l.NotBefore.IsZero() {
		l.NotBefore = time.Now().Add(-time.Minute)
	}
	if l.NotAfter.IsZero() {
		l.NotAfter = time.Now().Add(time.Hour)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := c.Sign(l, &key.PublicKey)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// CreateCertificate implements istiod's certificate service: the caller's token has to be right, and the certificate is
// for the identity in the metadata, not for the one in the signing request.
func (c *CA) CreateCertificate(
	ctx context.Context, r *caapi.IstioCertificateRequest,
) (*caapi.IstioCertificateResponse, error) {
	if err := authenticate(ctx); err != nil {
		return nil, err
	}
	if c.Refuse.Load() {
		return nil, status.Error(codes.Unavailable, "the test refuses")
	}
	md, _ := metadata.FromIncomingContext(ctx)
	if len(md.Get("clusterid")) != 1 {
		return nil, status.Error(codes.Unauthenticated, "no cluster id")
	}
	block, _ := pem.Decode([]byte(r.GetCsr()))
	if block == nil {
		return nil, status.Error(codes.InvalidArgument, "no PEM")
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	id := r.GetMetadata().GetFields()["ImpersonatedIdentity"].GetStringValue()
	der, err := c.Sign(Leaf{
		URIs: []string{id}, NotBefore: time.Now().Add(-time.Second),
		NotAfter: time.Now().Add(time.Duration(c.TTL.Load())),
	}, csr.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("signing: %w", err)
	}
	c.Signed.Add(1)
	return &caapi.IstioCertificateResponse{CertChain: []string{string(encode(der)), string(c.PEM())}}, nil
}

// Token is the token of the node proxy that the simulated istiod accepts.
const Token = "token-of-the-proxy"

func authenticate(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get("authorization"); len(v) != 1 || v[0] != "Bearer "+Token {
		return status.Error(codes.Unauthenticated, "wrong token")
	}
	return nil
}
