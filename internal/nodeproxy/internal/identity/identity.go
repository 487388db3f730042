// Package identity requests the certificates of workloads, and verifies the certificates and identities of peers.
package identity

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

// Identity is a workload's SPIFFE identity.
type Identity struct {
	TrustDomain, Namespace, ServiceAccount string
}

// String returns the SPIFFE URI, or "" for the zero identity.
func (i Identity) String() string {
	if i == (Identity{}) {
		return ""
	}
	return "spiffe://" + i.TrustDomain + "/ns/" + i.Namespace + "/sa/" + i.ServiceAccount
}

// Parse parses a SPIFFE URI of Istio, spiffe://<trust domain>/ns/<namespace>/sa/<service account>.
func Parse(s string) (Identity, error) {
	rest, ok := strings.CutPrefix(s, "spiffe://")
	if !ok {
		return Identity{}, fmt.Errorf("identity %q is not a SPIFFE URI", s)
	}
	p := strings.Split(rest, "/")
	if len(p) != 5 || p[0] == "" || p[1] != "ns" || p[2] == "" || p[3] != "sa" || p[4] == "" {
		return Identity{}, fmt.Errorf(
			"identity %q is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>", s)
	}
	return Identity{TrustDomain: p[0], Namespace: p[2], ServiceAccount: p[4]}, nil
}

// FromCertificate returns the SPIFFE identity of a certificate. It returns an error for more than one, as
// https://github.com/spiffe/spiffe/blob/main/standards/X509-SVID.md requires.
func FromCertificate(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 {
		return Identity{}, fmt.Errorf("certificate has %d URI names, want exactly one", len(cert.URIs))
	}
	return Parse(cert.URIs[0].String())
}

// VerifyPeer verifies the chain that a peer presented, leaf first, and returns the leaf's identity. The leaf must be
// valid for usage.
func VerifyPeer(
	chain []*x509.Certificate, roots *x509.CertPool, now time.Time, usage x509.ExtKeyUsage,
) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, errors.New("peer sent no certificate")
	}
	intermediates := x509.NewCertPool()
	for _, c := range chain[1:] {
		intermediates.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	if err != nil {
		return Identity{}, fmt.Errorf("peer's certificate: %w", err)
	}
	id, err := FromCertificate(chain[0])
	if err != nil {
		return Identity{}, fmt.Errorf("peer's certificate: %w", err)
	}
	return id, nil
}

func (i Identity) url() (*url.URL, error) {
	u, err := url.Parse(i.String())
	if err != nil {
		return nil, fmt.Errorf("identity %q: %w", i, err)
	}
	return u, nil
}
