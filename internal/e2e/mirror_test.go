//go:build e2e && e2efull

package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log"
	"maps"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"ambientlab/internal/bundle"
	"ambientlab/internal/problem"
)

// mirror is a read-only registry that serves the images of a bundle under their own names.
type mirror struct {
	bundle *bundle.Bundle
	folder string
	// node is the node image, alias another name of it, which no Docker engine has.
	node, alias string
	// url is the mirror's address; ca, where it has one, a file with the certificate of its own authority.
	url, ca string
	// troubled mirrors want a bearer token, answer some requests with 429, and cut some connections. A mirror that
	// is locked gives no token.
	troubled, locked bool

	mu     sync.Mutex
	counts map[string]int
	cut    map[string]bool
}

const mirrorToken = "token-of-the-mirror"

// newMirror serves the bundle at the address of this host that the nodes reach too, with TLS where private is set.
func newMirror(t *testing.T, l *lab, private bool) *mirror {
	t.Helper()
	opened, err := bundle.Open(os.Getenv("SM_BUNDLE"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { opened.Close() })
	m := &mirror{bundle: opened, folder: os.Getenv("SM_BUNDLE"), counts: map[string]int{}, cut: map[string]bool{}}
	for _, image := range opened.Images() {
		if _, tag, is := strings.Cut(image.Ref, "kindest/node:"); is {
			m.node, m.alias = image.Ref, "docker.io/ambientlab/mirrored-node:"+tag
		}
	}
	network, err := l.docker.NetworkInspect(t.Context(), "bridge", client.NetworkInspectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	gateway := network.Network.IPAM.Config[0].Gateway.String()
	listener, err := net.Listen("tcp", net.JoinHostPort(gateway, "0"))
	if err != nil {
		t.Fatal(err)
	}
	m.url = "http://" + listener.Addr().String()
	if private {
		m.url = "https://" + listener.Addr().String()
		m.ca = filepath.Join(t.TempDir(), "ca.crt")
		own := []tls.Certificate{certificate(t, gateway, m.ca)}
		listener = tls.NewListener(listener, &tls.Config{Certificates: own})
	}
	server := &http.Server{Handler: m, ErrorLog: log.New(t.Output(), "mirror: ", 0)}
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(func() { _ = server.Close() })
	return m
}

// certificate makes one for an address, and writes that of the authority that has signed it into a file.
func certificate(t *testing.T, address, ca string) tls.Certificate {
	t.Helper()
	sign := func(template, parent *x509.Certificate, key, by *ecdsa.PrivateKey) []byte {
		template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
		raw, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), by)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	var keys [2]*ecdsa.PrivateKey
	for i := range keys {
		var err error
		if keys[i], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority of the mirror"}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	root := sign(authority, authority, keys[0], keys[0])
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: root}), 0o600); err != nil {
		t.Fatal(err)
	}
	leaf := sign(&x509.Certificate{
		SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.ParseIP(address)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, authority, keys[1], keys[0])
	return tls.Certificate{Certificate: [][]byte{leaf}, PrivateKey: keys[1]}
}

// count counts what happened, and gives the number.
func (m *mirror) count(what string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.counts[what]++
	return m.counts[what]
}

// counted gives what happened, and how often.
func (m *mirror) counted() map[string]int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.counts)
}

func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if m.troubled && m.refuses(w, r) {
		return
	}
	m.count("requests")
	if r.URL.Query().Get("ns") != "" { // which containerd sends to a mirror
		m.count("requests of nodes")
	}
	path := strings.TrimPrefix(r.URL.Path, "/v2/")
	if path == "" {
		return
	}
	if _, digest, is := strings.Cut(path, "/blobs/"); is {
		m.blob(w, r, digest)
		return
	}
	name, reference, _ := strings.Cut(path, "/manifests/")
	if !strings.HasPrefix(reference, "sha256:") {
		reference = m.resolve(name + ":" + reference)
	}
	raw, err := os.ReadFile(m.file(reference))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	kind := "application/vnd.oci.image.manifest.v1+json"
	if strings.Contains(string(raw), "distribution.manifest.v2") {
		kind = "application/vnd.docker.distribution.manifest.v2+json"
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Docker-Content-Digest", reference)
	w.Header().Set("Content-Length", fmt.Sprint(len(raw)))
	_, _ = w.Write(raw)
}

// refuses answers a request for a token, one without a token, and every ninth of the others.
func (m *mirror) refuses(w http.ResponseWriter, r *http.Request) bool {
	switch {
	case r.URL.Path == "/token" && m.locked:
		w.WriteHeader(http.StatusForbidden)
	case r.URL.Path == "/token":
		m.count("tokens")
		fmt.Fprintf(w, `{"token":%q}`, mirrorToken)
	case r.Header.Get("Authorization") != "Bearer "+mirrorToken:
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="mirror"`, m.url))
		w.WriteHeader(http.StatusUnauthorized)
	case m.count("requests with a token")%9 == 0:
		m.count("429")
		w.Header().Set("Retry-After", "1")
		w.WriteHeader(http.StatusTooManyRequests)
	default:
		return false
	}
	return true
}

// blob serves a blob. A troubled mirror cuts the first connection of some in the middle.
func (m *mirror) blob(w http.ResponseWriter, r *http.Request, digest string) {
	info, err := os.Stat(m.file(digest))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	m.mu.Lock()
	first := m.troubled && r.Method == http.MethodGet && !m.cut[digest] && info.Size() > 1<<20 && len(m.cut) < 6
	if first {
		m.cut[digest] = true
	}
	m.mu.Unlock()
	if first {
		m.count("cut")
		w = &halved{ResponseWriter: w, left: info.Size() / 2}
	}
	http.ServeFile(w, r, m.file(digest))
}

// halved ends the connection after some bytes.
type halved struct {
	http.ResponseWriter
	left int64
}

func (h *halved) Write(content []byte) (int, error) {
	if h.left -= int64(len(content)); h.left < 0 {
		panic(http.ErrAbortHandler)
	}
	return h.ResponseWriter.Write(content)
}

func (m *mirror) file(digest string) string {
	return filepath.Join(m.folder, "blobs", strings.Replace(digest, ":", string(filepath.Separator), 1))
}

// resolve gives the digest of the manifest of an image, whatever its registry is.
func (m *mirror) resolve(name string) string {
	if strings.HasSuffix(m.alias, "/"+name) {
		_, name, _ = strings.Cut(m.node, "/")
	}
	for _, image := range m.bundle.Images() {
		if _, path, _ := strings.Cut(image.Ref, "/"); path == name {
			return image.Digest.String()
		}
	}
	return ""
}

// TestRegistryMirror installs the whole lab without a bundle, through mirrors in all states, and proves every claim, or
// wants the cause named before there is a cluster.
func TestRegistryMirror(t *testing.T) {
	// Mirrored images are what they are in the bundle; without one the lab cannot know that proxyv2 is upstream Envoy
	// and ztunnel the Go node proxy.
	read := func(file string) string {
		content, err := os.ReadFile("../../specs/" + file)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(content)) + "\n"
	}
	values := ""
	for _, chart := range []string{"istiod", "cni"} {
		nested := strings.ReplaceAll("\n"+read("istio/substitute-"+chart+".yaml"), "\n", "\n  ")
		values += chart + ":" + nested + "\n"
	}
	filter := strings.Replace(read("lessons/waypoint/upstream-envoy.yaml"), "name: appb-waypoint-upstream-envoy",
		"name: for-upstream-envoy\n  namespace: default", 1)
	for _, c := range []struct {
		name                      string
		private, troubled, locked bool
		withoutCA                 bool
		// says is what the failure names, empty for none.
		says []string
	}{
		{
			name: "an authority that is not known", private: true, withoutCA: true,
			says: []string{"certificate signed by unknown authority", "SM_REGISTRY_CA", problem.RegistryUnreachable.ID},
		},
		{
			name: "no token", troubled: true, locked: true,
			says: []string{"403 Forbidden", "mirrored-node", problem.RegistryDenied.ID},
		},
		{name: "a registry"},
		{name: "a token, 429 and cuts", troubled: true},
		{name: "an authority of its own", private: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			folder := t.TempDir()
			env := []string{"SM_BUNDLE=", "SM_ADDONS=none", "SM_WORKERS=1"}
			for variable, content := range map[string]string{"SM_ISTIO_VALUES": values, "SM_MANIFESTS": filter} {
				file := filepath.Join(folder, variable+".yaml")
				if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
				env = append(env, variable+"="+file)
			}
			l := newLab(t, "lab-mirror", env...)
			before := l.leaks(t)
			m := newMirror(t, l, c.private)
			m.troubled, m.locked = c.troubled, c.locked
			l.env = append(l.env, "SM_REGISTRY_MIRROR="+m.url, "SM_NODE_IMAGE="+m.alias)
			if !c.withoutCA {
				l.env = append(l.env, "SM_REGISTRY_CA="+m.ca)
			}
			t.Cleanup(func() {
				l.try(t, "sm:delete")
				if after := l.leaks(t); after != before {
					t.Errorf("before the lab there was %s, after it there is %s", before, after)
				}
				_, err := l.docker.ImageRemove(context.Background(), m.alias, client.ImageRemoveOptions{})
				if err != nil && c.says == nil {
					t.Error(err)
				}
			})
			if c.says != nil {
				l.refused(t, before, c.says...)
				return
			}
			whole := l.mage(t, "sm:lab")
			counts := m.counted()
			t.Logf("%s\n%v", whole.stdout, counts)
			if !strings.Contains(whole.stdout, " claims proven") || strings.Contains(whole.stdout, "refuted") ||
				strings.Contains(whole.stdout, "inconclusive") {
				t.Error("not every claim is proven")
			}
			wanted := []string{"requests of nodes"}
			if c.troubled {
				wanted = append(wanted, "tokens", "429", "cut")
			}
			for _, what := range wanted {
				if counts[what] == 0 {
					t.Errorf("the test had no %s", what)
				}
			}
			again := l.mage(t, "sm:install")
			if !strings.Contains(again.stderr, "no changes") {
				t.Error("a second install does not say `no changes`")
			}
		})
	}
}

// refused wants an install to fail before there is a cluster, and to name the cause.
func (l *lab) refused(t *testing.T, before inventory, words ...string) {
	t.Helper()
	failed := l.try(t, "sm:install")
	if failed.code == 0 {
		t.Error("the install did not fail")
	}
	for _, word := range words {
		if !strings.Contains(failed.stderr, word) {
			t.Errorf("the failure does not name %q", word)
		}
	}
	if after := l.leaks(t); after != before {
		t.Errorf("before the install there was %s, after it there is %s", before, after)
	}
}
