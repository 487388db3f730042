package identity

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"time"
)

// ServerConfig is the TLS of an HBONE listener: TLS 1.3 only, HTTP/2 only, and a client certificate of our trust
// domain from one of our roots.
func ServerConfig(cert *Certificate, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert.TLS},
		NextProtos:   []string{"h2"},
		// The chain is verified below, as SPIFFE wants it. A name is never looked at.
		ClientAuth: tls.RequireAnyClientCert,
		// A resumed session would skip a certificate that ended or was replaced since.
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol != "h2" {
				return errors.New("peer does not offer HTTP/2")
			}
			id, err := VerifyPeer(cs.PeerCertificates, cert.Roots, now(), x509.ExtKeyUsageClientAuth)
			if err != nil {
				return err
			}
			if id.TrustDomain != cert.Identity.TrustDomain {
				return fmt.Errorf("peer %s is not of trust domain %s", id, cert.Identity.TrustDomain)
			}
			return nil
		},
	}
}

// ClientConfig is the TLS of an HBONE connection as cert's identity to a peer that must be one of want.
func ClientConfig(cert *Certificate, want []Identity, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert.TLS},
		NextProtos:   []string{"h2"},
		// Peers are known by SPIFFE identity and not by a DNS name, which crypto/tls cannot verify by itself;
		// VerifyConnection does all of it, on every connection.
		InsecureSkipVerify:          true, //nolint:gosec // see above
		DynamicRecordSizingDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol != "h2" {
				return errors.New("peer does not speak HTTP/2")
			}
			id, err := VerifyPeer(cs.PeerCertificates, cert.Roots, now(), x509.ExtKeyUsageServerAuth)
			if err != nil {
				return err
			}
			if !slices.Contains(want, id) {
				return fmt.Errorf("identity mismatch: peer is %s, want one of %v", id, want)
			}
			return nil
		},
	}
}

// Handshake completes tc within ctx and returns the peer's identity, which the config has verified.
func Handshake(ctx context.Context, tc *tls.Conn) (Identity, error) {
	if err := tc.HandshakeContext(ctx); err != nil {
		return Identity{}, fmt.Errorf("tls handshake: %w", err)
	}
	return FromCertificate(tc.ConnectionState().PeerCertificates[0])
}
