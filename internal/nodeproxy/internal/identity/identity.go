// Package identity gives workloads their certificates and reads other workloads' identities out of theirs.
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

// String returns the SPIFFE URI; nothing for no identity.
func (i Identity) String() string {
	if i == (Identity{}) {
		return ""
	}
	return "spiffe://" + i.TrustDomain + "/ns/" + i.Namespace + "/sa/" + i.ServiceAccount
}

// IsZero says whether there is no identity.
func (i Identity) IsZero() bool { return i == Identity{} }

// Parse reads an Istio SPIFFE URI, spiffe://<trust domain>/ns/<namespace>/sa/<service account>.
func Parse(s string) (Identity, error) {
	rest, ok := strings.CutPrefix(s, "spiffe://")
	if !ok {
		return Identity{}, fmt.Errorf("identity %q is not a SPIFFE URI", s)
	}
	p := strings.Split(rest, "/")
	if len(p) != 5 || p[0] == "" || p[1] != "ns" || p[2] == "" || p[3] != "sa" || p[4] == "" {
		return Identity{}, fmt.Errorf("identity %q is not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>", s)
	}
	return Identity{TrustDomain: p[0], Namespace: p[2], ServiceAccount: p[4]}, nil
}

// FromCertificate returns the one SPIFFE identity of a certificate. More than one is refused, as the SPIFFE X.509
// document demands: which of them counts would be the reader's guess.
func FromCertificate(cert *x509.Certificate) (Identity, error) {
	if len(cert.URIs) != 1 {
		return Identity{}, fmt.Errorf("certificate has %d URI names, want exactly one", len(cert.URIs))
	}
	return Parse(cert.URIs[0].String())
}

// VerifyPeer checks the chain that a peer presented, leaf first, against roots and returns the leaf's identity.
// usage is what the leaf must be allowed for.
func VerifyPeer(chain []*x509.Certificate, roots *x509.CertPool, now time.Time, usage x509.ExtKeyUsage) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, errors.New("peer sent no certificate")
	}
	between := x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
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
