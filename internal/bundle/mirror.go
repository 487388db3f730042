package bundle

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"

	"ambientlab/internal/problem"
)

// Mirror is a registry that serves the images of all other registries, such as a pull-through cache.
type Mirror struct {
	address *url.URL
	ca      []byte
	inner   http.RoundTripper
	auth    authn.AuthConfig
}

// NewMirror makes a Mirror. address is a URL such as https://mirror.example.com/prefix; it may hold a user and a
// password. Otherwise the credentials of the Docker CLI for its host are used, if there are any. ca, if not empty,
// holds certificates in PEM form that are trusted in addition to the system's.
func NewMirror(address string, ca []byte) (*Mirror, error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return nil, fmt.Errorf("reading the address of a registry mirror: %w", err)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	if len(ca) > 0 {
		roots, err := x509.SystemCertPool()
		if err != nil {
			roots = x509.NewCertPool()
		}
		if !roots.AppendCertsFromPEM(ca) {
			return nil, problem.New(problem.SettingFileUnreadable, nil,
				"SM_REGISTRY_CA holds no certificate in PEM form")
		}
		transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
	}
	m := &Mirror{ca: ca, inner: transport}
	if user := parsed.User; user != nil {
		m.auth.Username = user.Username()
		m.auth.Password, _ = user.Password()
		parsed.User = nil
	} else if m.auth, err = credentials(parsed.Host); err != nil {
		return nil, err
	}
	parsed.Path = strings.TrimSuffix(parsed.Path, "/")
	m.address = parsed
	return m, nil
}

// credentials are those of the Docker CLI for a host.
func credentials(host string) (authn.AuthConfig, error) {
	registry, err := name.NewRegistry(host)
	if err != nil {
		return authn.AuthConfig{}, fmt.Errorf("reading the host of a registry mirror: %w", err)
	}
	found, err := authn.DefaultKeychain.Resolve(registry)
	if err != nil {
		return authn.AuthConfig{}, fmt.Errorf("looking for the credentials of registry mirror %s: %w", host, err)
	}
	config, err := found.Authorization()
	if err != nil {
		return authn.AuthConfig{}, fmt.Errorf("reading the credentials of registry mirror %s: %w", host, err)
	}
	return *config, nil
}

// String is the address, without credentials.
func (m *Mirror) String() string { return m.address.String() }

// Options are those of a Pull through the mirror.
func (m *Mirror) Options() Options {
	return Options{Transport: m.inner, Keychain: m, Repository: m.repository}
}

// Resolve implements authn.Keychain: the credentials are the mirror's.
func (m *Mirror) Resolve(authn.Resource) (authn.Authenticator, error) {
	return authn.FromConfig(m.auth), nil
}

// repository is where the mirror has a repository of another registry.
func (m *Mirror) repository(of string) (name.Repository, error) {
	original, err := name.NewRepository(of)
	if err != nil {
		return original, err
	}
	var options []name.Option
	if m.address.Scheme == "http" {
		options = append(options, name.Insecure)
	}
	return name.NewRepository(m.address.Host+m.address.Path+"/"+original.RepositoryStr(), options...)
}

// checkLimit bounds the question whether the mirror answers.
const checkLimit = 10 * time.Second

// Check asks the mirror whether it is a registry. The error is the problem RegistryUnreachable with the cause.
func (m *Mirror) Check(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, checkLimit, fmt.Errorf("it did not answer within %s", checkLimit))
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, m.address.Scheme+"://"+m.address.Host+"/v2/",
		http.NoBody)
	if err != nil {
		return fmt.Errorf("asking registry mirror %s: %w", m, err)
	}
	answer, err := m.inner.RoundTrip(request)
	if err != nil {
		failed := problem.New(problem.RegistryUnreachable, err,
			"registry mirror %s (SM_REGISTRY_MIRROR) does not answer", m)
		if !transientError(err) {
			failed = failed.With("For a mirror with a certificate of a private authority, " +
				"set SM_REGISTRY_CA to a file with the authority's certificate.")
		}
		return failed
	}
	_ = answer.Body.Close()
	switch answer.StatusCode {
	case http.StatusOK, http.StatusUnauthorized, http.StatusTooManyRequests: // the pulls log in, and wait
		return nil
	}
	return problem.New(problem.RegistryUnreachable, nil,
		"registry mirror %s (SM_REGISTRY_MIRROR) answers %s to /v2/, which is not the answer of a registry", m,
		answer.Status)
}

// The files by which containerd in a node uses the mirror for every registry (containerd, docs/hosts.md).
const (
	HostsDir  = "/etc/containerd/certs.d"
	HostsFile = HostsDir + "/_default/hosts.toml"
	HostsCA   = HostsDir + "/_default/mirror-ca.crt"
)

// NodeFiles gives the content of these files. Where the mirror does not have an image, containerd asks the image's own
// registry.
func (m *Mirror) NodeFiles() map[string][]byte {
	var hosts bytes.Buffer
	server := m.address.String()
	if m.address.Path != "" {
		server = m.address.Scheme + "://" + m.address.Host + "/v2" + m.address.Path
	}
	fmt.Fprintf(&hosts, "[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", server)
	if m.address.Path != "" {
		hosts.WriteString("  override_path = true\n")
	}
	if len(m.ca) > 0 {
		fmt.Fprintf(&hosts, "  ca = %q\n", HostsCA)
	}
	if m.auth.Username != "" {
		basic := base64.StdEncoding.EncodeToString([]byte(m.auth.Username + ":" + m.auth.Password))
		fmt.Fprintf(&hosts, "  [host.%q.header]\n    Authorization = [\"Basic %s\"]\n", server, basic)
	}
	files := map[string][]byte{HostsFile: hosts.Bytes()}
	if len(m.ca) > 0 {
		files[HostsCA] = m.ca
	}
	return files
}
