package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/problem"
)

const (
	credential = `{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential","status":{"token":"secret"}}`
	emptyNodes = `{"apiVersion":"v1","kind":"NodeList","items":[]}`
	version136 = `{"major":"1","minor":"36","gitVersion":"v1.36.3"}`
)

// loginTo is an existing cluster at server whose kubeconfig logs in with a shell script.
func loginTo(t *testing.T, server, script string) *Existing {
	t.Helper()
	dir := t.TempDir()
	plugin := filepath.Join(dir, "get-token")
	if script != "" {
		if err := os.WriteFile(plugin, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "config")
	text := fmt.Sprintf(
		`{"apiVersion":"v1","kind":"Config","current-context":"theirs",
		"contexts":[{"name":"theirs","context":{"cluster":"theirs","user":"theirs"}}],
		"clusters":[{"name":"theirs","cluster":{"server":%q,"insecure-skip-tls-verify":true}}],
		"users":[{"name":"theirs","user":{"exec":{"apiVersion":"client.authentication.k8s.io/v1","command":%q,
		"interactiveMode":"Never","installHint":"get it from the shop"}}}]}`,
		server,
		plugin,
	)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return NewExisting(ExistingOptions{Kubeconfig: config})
}

func TestLoginPlugin(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.Header.Get("Authorization") != "Bearer secret":
			w.WriteHeader(http.StatusUnauthorized)
		case r.URL.Path == "/version":
			_, _ = io.WriteString(w, version136)
		default:
			_, _ = io.WriteString(w, emptyNodes)
		}
	}))
	defer server.Close()
	t.Run("slower than the API server may be", func(t *testing.T) {
		e := loginTo(t, server.URL, "sleep 3; echo >>\"$0.runs\"; echo '"+credential+"'\n")
		e.limit = 2 * time.Second
		for range 2 {
			if info, err := e.Inspect(t.Context()); err != nil || info.State != Ready || info.Version != "v1.36.3" {
				t.Errorf("%+v, %v", info, err)
			}
		}
		runs, err := os.ReadFile(filepath.Join(filepath.Dir(e.opts.Kubeconfig), "get-token.runs"))
		if err != nil || string(runs) != "\n" {
			t.Errorf("the plug-in ran %d times, %v", len(runs), err)
		}
	})
	t.Run("missing", func(t *testing.T) {
		_, err := loginTo(t, server.URL, "").Inspect(t.Context())
		if !problem.Is(err, problem.ToolMissing) ||
			!strings.Contains(err.Error(), "get-token, which is not installed") ||
			!strings.Contains(strings.Join(problem.All(err)[0].Advice, " "), "the shop") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("fails", func(t *testing.T) {
		_, err := loginTo(t, server.URL, "exit 7\n").Inspect(t.Context())
		if !problem.Is(err, problem.ClusterLogin) || !strings.Contains(err.Error(), "exit code 7") {
			t.Errorf("got %v", err)
		}
	})
	t.Run("prints something else", func(t *testing.T) {
		if _, err := loginTo(t, server.URL, "echo hello\n").
			Inspect(t.Context()); !problem.Is(err, problem.ClusterLogin) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("interrupted", func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("interrupt")
		e := loginTo(t, server.URL, "touch \"$0.started\"; exec sleep 60 >/dev/null 2>&1\n")
		go func() {
			for ctx.Err() == nil {
				if _, err := os.Stat(filepath.Join(filepath.Dir(e.opts.Kubeconfig), "get-token.started")); err == nil {
					cancel(why)
				}
			}
		}()
		if _, err := e.Inspect(ctx); !errors.Is(err, why) {
			t.Errorf("got %v", err)
		}
	})
	t.Run("no API server", func(t *testing.T) {
		info, err := loginTo(t, "https://127.0.0.1:1", "echo '"+credential+"'\n").Inspect(t.Context())
		if err != nil || info.State != Unreachable {
			t.Errorf("%+v, %v", info, err)
		}
	})
}
