package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"time"
)

func selfSigned(t testing.TB, uri string, key *ecdsa.PrivateKey) string {
	t.Helper()
	u, err := url.Parse(uri)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotBefore: time.Now(),
		NotAfter: time.Now().Add(time.Hour),
		URIs:     []*url.URL{u},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// TestAssemble holds what the proxy refuses of a CA's answer.
func TestAssemble(t *testing.T) {
	id := Identity{TrustDomain: "cluster.local", Namespace: "default", ServiceAccount: "appa"}
	key, csr, err := newRequest(id)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(csr, "BEGIN CERTIFICATE REQUEST") {
		t.Errorf("request is %q", csr)
	}
	foreign, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	leaf, root := selfSigned(t, id.String(), key), selfSigned(t, "spiffe://authority/ns/a/sa/b", foreign)
	for name, c := range map[string]struct {
		chain []string
		good  bool
	}{
		"leaf and root":         {[]string{leaf, root}, true},
		"with an intermediate":  {[]string{leaf, root, root}, true},
		"two roots in one part": {[]string{leaf, root + root}, true},
		"no root":               {[]string{leaf}, false},
		"nothing":               {nil, false},
		"another identity":      {[]string{selfSigned(t, id.String()+"x", key), root}, false},
		"another key":           {[]string{selfSigned(t, id.String(), foreign), root}, false},
		"no PEM":                {[]string{"x", root}, false},
		"a key for a leaf":      {[]string{strings.ReplaceAll(leaf, "CERTIFICATE", "PRIVATE KEY"), root}, false},
		"damaged":               {[]string{strings.Replace(leaf, "M", "A", 3), root}, false},
	} {
		t.Run(name, func(t *testing.T) {
			cert, err := assemble(id, key, c.chain)
			if (err == nil) != c.good {
				t.Fatalf("got %v", err)
			}
			if c.good && (len(cert.TLS.Certificate) != len(c.chain)-1 || cert.TLS.Leaf == nil ||
				len(cert.RootCerts) == 0) {
				t.Errorf("chain of %d, %d roots", len(cert.TLS.Certificate), len(cert.RootCerts))
			}
		})
	}
}

func FuzzParsePEM(f *testing.F) {
	key, _, err := newRequest(Identity{"a", "b", "c"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(selfSigned(f, "spiffe://a/ns/b/sa/c", key)))
	f.Fuzz(func(t *testing.T, in []byte) {
		if certs, err := parsePEM(in); err == nil && len(certs) == 0 {
			t.Error("no certificate and no error")
		}
	})
}
