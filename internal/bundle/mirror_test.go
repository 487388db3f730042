package bundle

import (
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"ambientlab/internal/problem"
)

// mirrorServer serves what is pushed to it. before is called for every request; where it returns true it has answered.
func mirrorServer(t *testing.T, tls bool, before func(w http.ResponseWriter, r *http.Request) bool) (
	server *httptest.Server, push func(repository string),
) {
	t.Helper()
	inner := registry.New(registry.Logger(log.New(io.Discard, "", 0)))
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if before == nil || !before(w, r) {
			inner.ServeHTTP(w, r)
		}
	})
	server = httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if tls {
		server.StartTLS()
	} else {
		server.Start()
	}
	t.Cleanup(server.Close)
	plain := httptest.NewServer(inner)
	t.Cleanup(plain.Close)
	return server, func(repository string) {
		ref, err := name.NewTag(strings.TrimPrefix(plain.URL, "http://") + "/" + repository)
		if err == nil {
			err = remote.Write(ref, makeImage(t, 2, ""))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// pulled pulls an image of Docker Hub through a mirror.
func pulled(t *testing.T, m *Mirror) error {
	t.Helper()
	w, err := Create(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	options := m.Options()
	options.Progress = func(p Progress) { t.Log(p) }
	err = Pull(t.Context(), []string{"docker.io/istio/pilot:1"}, amd64, w, options)
	return errors.Join(err, w.Abort())
}

func mirror(t *testing.T, address string, ca []byte) *Mirror {
	t.Helper()
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	m, err := NewMirror(address, ca)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMirrorServesOtherRegistries(t *testing.T) {
	var asked []string
	server, push := mirrorServer(t, false, func(_ http.ResponseWriter, r *http.Request) bool {
		asked = append(asked, r.URL.Path)
		r.URL.Path = strings.Replace(r.URL.Path, "/v2/hub/", "/v2/", 1)
		return false
	})
	push("istio/pilot:1")
	for _, prefix := range []string{"", "/hub"} {
		m := mirror(t, server.URL+prefix, nil)
		if err := m.Check(t.Context()); err != nil {
			t.Error(err)
		}
		if err := pulled(t, m); err != nil {
			t.Errorf("with prefix %q: %v, asked for %q", prefix, err, asked)
		}
		if prefix != "" && !strings.HasPrefix(asked[len(asked)-1], "/v2/hub/istio/pilot/") {
			t.Errorf("asked for %q", asked)
		}
	}
}

// The mirror wants a token, which its token server gives to a client that logs in.
func TestMirrorWithBearerTokens(t *testing.T) {
	var server *httptest.Server
	server, push := mirrorServer(t, false, func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case r.URL.Path == "/token":
			user, password, _ := r.BasicAuth()
			if user != "ada" || password != "secret-1" {
				w.WriteHeader(http.StatusUnauthorized)
				return true
			}
			fmt.Fprint(w, `{"token":"T-1"}`)
			return true
		case r.Header.Get("Authorization") != "Bearer T-1":
			w.Header().Set("WWW-Authenticate", `Bearer realm="`+server.URL+`/token",service="mirror"`)
			w.WriteHeader(http.StatusUnauthorized)
			return true
		}
		return false
	})
	push("istio/pilot:1")
	with := func(user string) *Mirror {
		return mirror(t, strings.Replace(server.URL, "http://", "http://"+user, 1), nil)
	}
	m := with("ada:secret-1@")
	if err := errors.Join(m.Check(t.Context()), pulled(t, m)); err != nil {
		t.Error(err)
	}
	if strings.Contains(m.String(), "secret-1") {
		t.Errorf("the address %s shows the password", m)
	}
	if err := pulled(t, with("")); !problem.Is(err, problem.RegistryDenied) {
		t.Errorf("without credentials: %v", err)
	}
}

// 429 and connections that are cut are for a while; a limit of hours is the problem that names it.
func TestMirrorInTrouble(t *testing.T) {
	requests := 0
	server, push := mirrorServer(t, false, func(w http.ResponseWriter, r *http.Request) bool {
		requests++
		switch {
		case requests == 3:
			w.WriteHeader(http.StatusTooManyRequests)
			return true
		case requests == 5:
			panic(http.ErrAbortHandler)
		}
		return false
	})
	push("istio/pilot:1")
	if err := pulled(t, mirror(t, server.URL, nil)); err != nil {
		t.Error(err)
	}
	limited, _ := mirrorServer(t, false, func(w http.ResponseWriter, _ *http.Request) bool {
		w.Header().Set("Retry-After", "21600")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	if err := pulled(t, mirror(t, limited.URL, nil)); !problem.Is(err, problem.RegistryLimited) ||
		!strings.Contains(err.Error(), strings.TrimPrefix(limited.URL, "http://")) {
		t.Errorf("got %v, want the problem with the mirror's name", err)
	}
}

func TestMirrorWithPrivateCA(t *testing.T) {
	server, push := mirrorServer(t, true, nil)
	push("istio/pilot:1")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	m := mirror(t, server.URL, ca)
	if err := errors.Join(m.Check(t.Context()), pulled(t, m)); err != nil {
		t.Error(err)
	}
	err := mirror(t, server.URL, nil).Check(t.Context())
	if !problem.Is(err, problem.RegistryUnreachable) || !strings.Contains(err.Error(), "certificate") ||
		!strings.Contains(problem.All(err)[0].Advice[0], "SM_REGISTRY_CA") {
		t.Errorf("without the authority: %v", err)
	}
	if _, err := NewMirror(server.URL, []byte("no PEM")); !problem.Is(err, problem.SettingFileUnreadable) {
		t.Errorf("a file without a certificate: %v", err)
	}
}

func TestMirrorCheckNamesTheCause(t *testing.T) {
	noRegistry := httptest.NewServer(http.NotFoundHandler())
	defer noRegistry.Close()
	for address, says := range map[string]string{
		"http://127.0.0.1:1": "refused", noRegistry.URL: "not the answer of a registry",
	} {
		err := mirror(t, address, nil).Check(t.Context())
		if !problem.Is(err, problem.RegistryUnreachable) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestMirrorNodeFiles(t *testing.T) {
	for address, want := range map[string]string{
		"http://10.0.0.1:5000": "[host.\"http://10.0.0.1:5000\"]\n  capabilities = [\"pull\", \"resolve\"]\n",
		"https://m.example.com/hub/": "[host.\"https://m.example.com/v2/hub\"]\n" +
			"  capabilities = [\"pull\", \"resolve\"]\n  override_path = true\n",
		"https://ada:x@m.example.com": "[host.\"https://m.example.com\"]\n  capabilities = [\"pull\", \"resolve\"]\n" +
			"  [host.\"https://m.example.com\".header]\n    Authorization = [\"Basic YWRhOng=\"]\n",
	} {
		files := mirror(t, address, nil).NodeFiles()
		if got := string(files[HostsFile]); got != want || len(files) != 1 {
			t.Errorf("%s: got\n%s\nwant\n%s", address, got, want)
		}
	}
}
