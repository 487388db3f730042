package bundle

import (
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/mutate"

	"ambientlab/internal/problem"
)

func TestPullExplainsFailures(t *testing.T) {
	f := newRegistry(t)
	ref := f.push(t, "lab/x:1", makeImage(t, 1, ""))
	arm, err := mutate.ConfigFile(makeImage(t, 1, ""), &v1.ConfigFile{OS: "linux", Architecture: "arm64"})
	if err != nil {
		t.Fatal(err)
	}
	armRef := f.push(t, "lab/arm:1", arm)
	status := func(code int, header string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/v2/" {
				return false
			}
			w.Header().Set("Retry-After", header)
			w.WriteHeader(code)
			return true
		}
	}
	tests := map[string]struct {
		ref   string
		fault func(http.ResponseWriter, *http.Request) bool
		kind  problem.Kind
		says  string
		waits int
	}{
		"unknown": {f.host + "/lab/absent:1", nil, problem.ImageUnknown, "404", 0},
		"denied":  {ref, status(http.StatusForbidden, ""), problem.RegistryDenied, "403", 0},
		"limited": {
			ref, status(http.StatusTooManyRequests, ""), problem.RegistryLimited, "429",
			maxAttempts - 1,
		},
		"limited for 6h": {ref, status(http.StatusTooManyRequests, "21600"), problem.RegistryLimited, "429", 0},
		"broken":         {ref, status(http.StatusBadGateway, ""), problem.RegistryUnreachable, "502", maxAttempts - 1},
		"platform":       {armRef, nil, problem.ImageUnknown, "no image for linux/amd64, only for linux/arm64", 0},
	}
	for name, test := range tests {
		synctestRun(t, name, func(t *testing.T) {
			f.set(test.fault)
			err := f.pullInto(t, t.Context(), newDir(t), Options{}, test.ref)
			if !problem.Is(err, test.kind) || !strings.Contains(err.Error(), test.says) ||
				!strings.Contains(err.Error(), "pulling "+test.ref) {
				t.Errorf("pulling gives %v, want %s saying %q", err, test.kind.ID, test.says)
			}
			waits := f.waits()
			if len(waits) != test.waits {
				t.Errorf("waited %v, want %d waits", waits, test.waits)
			}
			for i, d := range waits {
				if least := min(maxWait, firstWait<<i); d < least || d >= least+least/2 {
					t.Errorf("wait %d was %s, want %s and up to half as much again", i, d, least)
				}
			}
		})
	}
}

func TestAnUnreachableRegistryIsOneProblemAnImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRegistry(t)
		good := f.push(t, "lab/x:1", makeImage(t, 1, ""))
		bad := "127.0.0.1:1/lab/y:1"
		dir := newDir(t)
		w := create(t, dir)
		err := Pull(t.Context(), []string{bad, good}, amd64, w, Options{Transport: f})
		if all := problem.All(err); len(all) != 1 || !problem.Is(err, problem.RegistryUnreachable) ||
			!strings.Contains(err.Error(), bad) {
			t.Errorf("pulling gives %v", err)
		}
		if _, ok := w.entries[good]; !ok {
			t.Error("the reachable image was not fetched")
		}
	})
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "soon": 0, "-4": 0, "90": 90 * time.Second,
		"Mon, 23 Nov 2026 12:00:30 GMT": 30 * time.Second,
		"Mon, 23 Nov 2026 11:00:00 GMT": 0,
	} {
		if got := retryAfter(value, now); got != want {
			t.Errorf("%q gives %s, want %s", value, got, want)
		}
	}
}
