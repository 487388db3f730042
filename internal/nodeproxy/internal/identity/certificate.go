package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/url"
	"time"
)

// Certificate is a workload's certificate with its key, and the roots by which it verifies its peers.
type Certificate struct {
	Identity Identity
	TLS      tls.Certificate
	Roots    *x509.CertPool
	// RootCerts are the certificates in Roots, for the admin page.
	RootCerts []*x509.Certificate
}

// NotBefore returns the start of the certificate's validity.
func (c *Certificate) NotBefore() time.Time { return c.TLS.Leaf.NotBefore }

// NotAfter returns the end of the certificate's validity.
func (c *Certificate) NotAfter() time.Time { return c.TLS.Leaf.NotAfter }

// newRequest creates a key and a certificate signing request for id, in PEM.
func newRequest(id Identity) (*ecdsa.PrivateKey, string, error) {
	u, err := id.url()
	if err != nil {
		return nil, "", err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, "", fmt.Errorf("creating a key for %s: %w", id, err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{URIs: []*url.URL{u}}, key)
	if err != nil {
		return nil, "", fmt.Errorf("creating a signing request for %s: %w", id, err)
	}
	return key, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})), nil
}

// assemble makes a certificate of the CA's answer, which has the leaf first and the roots last. It returns an error if
// the answer is for another identity or another key.
func assemble(id Identity, key *ecdsa.PrivateKey, chain []string) (*Certificate, error) {
	if len(chain) < 2 {
		return nil, fmt.Errorf("certificate for %s: the CA sent %d certificates, want at least a leaf and a root", id,
			len(chain))
	}
	var parts [][]*x509.Certificate
	for i, s := range chain {
		certs, err := parsePEM([]byte(s))
		if err != nil {
			return nil, fmt.Errorf("certificate for %s, part %d of the chain: %w", id, i, err)
		}
		parts = append(parts, certs)
	}
	c := &Certificate{Identity: id, Roots: x509.NewCertPool(), RootCerts: parts[len(parts)-1]}
	for _, root := range c.RootCerts {
		c.Roots.AddCert(root)
	}
	c.TLS.PrivateKey = key
	var presented []*x509.Certificate
	for _, part := range parts[:len(parts)-1] {
		presented = append(presented, part...)
	}
	for _, cert := range presented {
		c.TLS.Certificate = append(c.TLS.Certificate, cert.Raw)
	}
	c.TLS.Leaf = presented[0]
	if !key.PublicKey.Equal(c.TLS.Leaf.PublicKey) {
		return nil, fmt.Errorf("certificate for %s: the CA certified another key", id)
	}
	got, err := FromCertificate(c.TLS.Leaf)
	if err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", id, err)
	}
	if got != id {
		return nil, fmt.Errorf("certificate for %s: the CA certified %s", id, got)
	}
	return c, nil
}

func parsePEM(b []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		var block *pem.Block
		if block, b = pem.Decode(b); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("PEM block is a %q, want a CERTIFICATE", block.Type)
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("parsing: %w", err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate in PEM")
	}
	return certs, nil
}
