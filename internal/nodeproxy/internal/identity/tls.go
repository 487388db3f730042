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

// ServerConfig returns the TLS configuration of an HBONE listener: TLS 1.3, HTTP/2, and a client certificate of cert's
// trust domain that one of cert's roots has signed.
func ServerConfig(cert *Certificate, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert.TLS},
		NextProtos:   []string{"h2"},
		// VerifyConnection verifies the certificate, since SPIFFE identities are not DNS names.
		ClientAuth: tls.RequireAnyClientCert,
		// A resumed session would not verify certificates again, which may have expired.
		SessionTicketsDisabled:      true,
		DynamicRecordSizingDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol != "h2" {
				return errors.New("peer does not support HTTP/2")
			}
			id, err := VerifyPeer(cs.PeerCertificates, cert.Roots, now(), x509.ExtKeyUsageClientAuth)
			if err != nil {
				return err
			}
			if id.TrustDomain != cert.Identity.TrustDomain {
				return fmt.Errorf("peer %s is not in trust domain %s", id, cert.Identity.TrustDomain)
			}
			return nil
		},
	}
}

// ClientConfig returns the TLS configuration of an HBONE connection with cert's identity. The peer's identity must be
// one of want.
func ClientConfig(cert *Certificate, want []Identity, now func() time.Time) *tls.Config {
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert.TLS},
		NextProtos:   []string{"h2"},
		// VerifyConnection verifies the certificate, since SPIFFE identities are not DNS names.
		InsecureSkipVerify:          true, //nolint:gosec // see above
		DynamicRecordSizingDisabled: true,
		VerifyConnection: func(cs tls.ConnectionState) error {
			if cs.NegotiatedProtocol != "h2" {
				return errors.New("peer does not support HTTP/2")
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

// Handshake completes tc's handshake before ctx ends, and returns the peer's identity, which the configuration has
// verified.
func Handshake(ctx context.Context, tc *tls.Conn) (Identity, error) {
	if err := tc.HandshakeContext(ctx); err != nil {
		return Identity{}, fmt.Errorf("tls handshake: %w", err)
	}
	return FromCertificate(tc.ConnectionState().PeerCertificates[0])
}
