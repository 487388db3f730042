package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/registry"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"ambientlab/internal/problem"
)

var amd64 = v1.Platform{OS: "linux", Architecture: "amd64"}

// faulty is a registry in this process that can be told to misbehave.
type faulty struct {
	host  string
	inner http.Handler

	mu sync.Mutex
	// fault is called for every request; where it returns true it has answered.
	fault    func(http.ResponseWriter, *http.Request) bool
	requests []string
}

func newRegistry(t *testing.T) *faulty {
	t.Helper()
	f := &faulty{inner: registry.New(registry.Logger(log.New(io.Discard, "", 0)))}
	server := httptest.NewServer(f)
	t.Cleanup(server.Close)
	f.host = strings.TrimPrefix(server.URL, "http://")
	return f
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests, strings.TrimSpace(r.Method+" "+r.URL.Path+" "+r.Header.Get("Range")))
	fault := f.fault
	f.mu.Unlock()
	if fault != nil && fault(w, r) {
		return
	}
	f.inner.ServeHTTP(w, r)
}

// set sets the fault and forgets the requests so far.
func (f *faulty) set(fault func(http.ResponseWriter, *http.Request) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault, f.requests = fault, nil
}

// asked lists the requests since the last set that contain all of the parts.
func (f *faulty) asked(parts ...string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []string
	for _, r := range f.requests {
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(r, part) }) {
			out = append(out, r)
		}
	}
	return out
}

// push puts an image into the registry and gives its reference.
func (f *faulty) push(t *testing.T, repository string, img v1.Image) string {
	t.Helper()
	ref, err := name.NewTag(f.host + "/" + repository)
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.Write(ref, img); err != nil {
		t.Fatal(err)
	}
	f.set(nil)
	return ref.String()
}

// pullInto pulls into a folder and commits.
func pullInto(t *testing.T, ctx context.Context, dir string, options Options, refs ...string) error {
	t.Helper()
	w, err := Create(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Abort(); err != nil {
			t.Error(err)
		}
	}()
	if options.Clock == nil {
		options.Clock = &fastClock{}
	}
	if err := Pull(ctx, refs, amd64, w, options); err != nil {
		return err
	}
	return w.Commit()
}

func newDir(t *testing.T) string { return filepath.Join(t.TempDir(), "bundle") }

func TestPullTakesThePlatformsImage(t *testing.T) {
	f := newRegistry(t)
	ours := makeImage(t, 2, "")
	plain := makeOf(t, types.DockerManifestSchema2, types.DockerLayer, 32<<10, 2, "")
	theirs, err := mutate.ConfigFile(makeImage(t, 2, ""), &v1.ConfigFile{OS: "linux", Architecture: "arm64"})
	if err != nil {
		t.Fatal(err)
	}
	index := mutate.AppendManifests(empty.Index,
		mutate.IndexAddendum{Add: theirs, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}}},
		mutate.IndexAddendum{Add: ours, Descriptor: v1.Descriptor{Platform: &amd64}})
	tag, err := name.NewTag(f.host + "/lab/several:1")
	if err != nil {
		t.Fatal(err)
	}
	if err := remote.WriteIndex(tag, index); err != nil {
		t.Fatal(err)
	}
	indexDigest, err := index.Digest()
	if err != nil {
		t.Fatal(err)
	}
	refs := []string{f.push(t, "lab/plain:1", plain), tag.String() + "@" + indexDigest.String()}
	dir := newDir(t)
	var last sync.Map
	if err := pullInto(t, t.Context(), dir, Options{Progress: func(p Progress) { last.Store(p.Ref, p) }}, refs...); err != nil {
		t.Fatal(err)
	}
	b := openBundle(t, dir)
	if err := b.Verify(t.Context()); err != nil {
		t.Error(err)
	}
	for i, want := range []v1.Image{plain, ours} {
		e, err := b.Lookup(refs[i])
		if err != nil {
			t.Fatal(err)
		}
		img, err := b.Image(refs[i])
		if err != nil {
			t.Fatal(err)
		}
		if got := layersOf(t, img); !slices.Equal(got, layersOf(t, want)) {
			t.Errorf("%s has layers %s, want %s", refs[i], got, layersOf(t, want))
		}
		p, _ := last.Load(e.Ref)
		if got := p.(Progress); !got.Finished || got.Done != got.Total || got.Fetched != got.Total || got.Total == 0 {
			t.Errorf("%s ended with %+v", e.Ref, got)
		}
	}
	if e, _ := b.Lookup(refs[1]); e.Source != indexDigest {
		t.Errorf("the index's digest was recorded as %s", e.Source)
	}
	if got := f.asked(layersOf(t, theirs)[0].String()); len(got) > 0 {
		t.Errorf("the other platform was fetched: %v", got)
	}
	// Once more into the same folder: tags are asked for, nothing is fetched.
	f.set(nil)
	if err := pullInto(t, t.Context(), dir, Options{}, refs...); err != nil {
		t.Fatal(err)
	}
	if got := f.asked("GET", "/lab/"); len(got) > 0 {
		t.Errorf("fetched again: %v", got)
	}
}

func TestPullWaitsAsLongAsTheRegistryAsks(t *testing.T) {
	f := newRegistry(t)
	img := makeImage(t, 2, "")
	ref := f.push(t, "lab/x:1", img)
	var refused sync.Map
	f.set(func(w http.ResponseWriter, r *http.Request) bool { // each thing is refused once
		if _, again := refused.LoadOrStore(r.Method+r.URL.Path, true); again || r.URL.Path == "/v2/" {
			return false
		}
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusTooManyRequests)
		return true
	})
	clock := &fastClock{}
	var messages []string
	options := Options{Clock: clock, Progress: func(p Progress) { messages = append(messages, p.Message) }}
	if err := pullInto(t, t.Context(), newDir(t), options, ref); err != nil {
		t.Fatal(err)
	}
	if len(clock.slept) != 5 { // tag, manifest, config, two layers
		t.Errorf("%d waits, want 5: %v", len(clock.slept), clock.slept)
	}
	for _, d := range clock.slept {
		if d != 7*time.Second {
			t.Errorf("waited %s, want the 7 s that were asked for", d)
		}
	}
	if !slices.ContainsFunc(messages, func(m string) bool {
		return strings.Contains(m, "429 Too Many Requests; trying again in 7s")
	}) {
		t.Errorf("nobody was told: %q", messages)
	}
}

func TestPullGoesOnWhereAConnectionWasCut(t *testing.T) {
	f := newRegistry(t)
	img := makeSized(t, 1<<20, 1, "")
	ref := f.push(t, "lab/x:1", img)
	layer := layersOf(t, img)[0].String()
	cuts := 0
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, layer) || cuts == 3 {
			return false
		}
		cuts++
		f.inner.ServeHTTP(&cutting{ResponseWriter: w, left: 300 << 10}, r)
		panic(http.ErrAbortHandler) // closes the connection in the middle of the body
	})
	clock := &fastClock{}
	if err := pullInto(t, t.Context(), newDir(t), Options{Clock: clock}, ref); err != nil {
		t.Fatal(err)
	}
	got := f.asked(layer)
	if len(got) != 4 {
		t.Fatalf("%d requests for the layer, want 4: %v", len(got), got)
	}
	for i, r := range got[1:] {
		if want := fmt.Sprintf("bytes=%d-", (i+1)*300<<10); !strings.Contains(r, want) {
			t.Errorf("request %d is %q, want one for %s", i+1, r, want)
		}
	}
	if len(clock.slept) != 3 || clock.slept[2] > 2*firstWait {
		t.Errorf("waits %v: what makes progress should not wait longer and longer", clock.slept)
	}
}

// cutting lets only so many bytes of a body through.
type cutting struct {
	http.ResponseWriter
	left int
}

func (c *cutting) Write(p []byte) (int, error) {
	n := min(len(p), c.left)
	c.left -= n
	if _, err := c.ResponseWriter.Write(p[:n]); err != nil {
		return 0, err
	}
	if f, ok := c.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
	return len(p), nil
}

func TestASecondRunFetchesOnlyWhatIsMissing(t *testing.T) {
	f := newRegistry(t)
	first, second := makeSized(t, 1<<20, 2, ""), makeSized(t, 2*tellEvery, 1, "")
	refs := []string{f.push(t, "lab/first:1", first), f.push(t, "lab/second:1", second)}
	cutLayer := layersOf(t, second)[0].String()
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("the user pressed Ctrl-C")
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, cutLayer) {
			return false
		}
		f.inner.ServeHTTP(&cutting{ResponseWriter: w, left: 3 * tellEvery / 2}, r)
		<-r.Context().Done() // the client is left waiting for the rest
		return true
	})
	dir := newDir(t)
	options := Options{Images: 1, Progress: func(p Progress) {
		if strings.HasSuffix(p.Ref, "second:1") && p.Done > tellEvery {
			cancel(why)
		}
	}}
	if err := pullInto(t, ctx, dir, options, refs...); !errors.Is(err, why) {
		t.Fatalf("the first run ended with %v", err)
	}
	if _, err := Open(dir); !problem.Is(err, problem.BundleUnfinished) {
		t.Errorf("after the first run: %v", err)
	}
	f.set(nil)
	if err := pullInto(t, t.Context(), dir, Options{}, refs...); err != nil {
		t.Fatal(err)
	}
	config, err := second.ConfigName() // it may have been on its way too
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"GET /v2/lab/second/blobs/" + cutLayer}
	got := slices.DeleteFunc(f.asked("GET /v2/lab/"), func(r string) bool { return strings.Contains(r, config.String()) })
	if len(got) != 1 || !strings.HasPrefix(got[0], want[0]) || !strings.Contains(got[0], "bytes=") || strings.Contains(got[0], "bytes=0-") {
		t.Errorf("the second run asked for %v, want only the rest of %v", got, want)
	}
	if err := openBundle(t, dir).Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestPullRefusesAWrongDigest(t *testing.T) {
	f := newRegistry(t)
	img := makeImage(t, 1, "")
	ref := f.push(t, "lab/x:1", img)
	digest, layer := digestOf(t, img).String(), layersOf(t, img)[0].String()
	other := "sha256:" + strings.Repeat("1", 64)
	answer := func(path, content string) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, r *http.Request) bool {
			if r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, path) {
				return false
			}
			_, err := io.WriteString(w, content)
			return err == nil
		}
	}
	size, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	length, err := size[0].Size()
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		ref   string
		fault func(http.ResponseWriter, *http.Request) bool
		says  string
	}{
		"manifest":       {ref, answer(digest, `{"schemaVersion":2}`), "when asked for " + digest},
		"pinned":         {ref + "@" + other, answer(other, `{"schemaVersion":2}`), "when asked for " + other},
		"layer":          {ref, answer(layer, strings.Repeat("x", int(length))), "serves something else as blob " + layer},
		"too long layer": {ref, answer(layer, strings.Repeat("x", int(length)+9)), "serves something else as blob " + layer},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			f.set(test.fault)
			dir := newDir(t)
			err := pullInto(t, t.Context(), dir, Options{}, test.ref)
			if !problem.Is(err, problem.DigestMismatch) || !strings.Contains(err.Error(), test.says) || !strings.Contains(err.Error(), "/lab/x:1") {
				t.Errorf("pulling gives %v, want it to say %q", err, test.says)
			}
			if _, err := Open(dir); err == nil {
				t.Error("a bundle was made")
			}
		})
	}
	// A layer that comes altered only once is fetched again.
	once := false
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if once {
			return false
		}
		once = answer(layer, strings.Repeat("x", int(length)))(w, r)
		return once
	})
	if err := pullInto(t, t.Context(), newDir(t), Options{}, ref); err != nil || !once {
		t.Errorf("altered once: %v", err)
	}
}

func TestPullUsesTheUsersCredentials(t *testing.T) {
	f := newRegistry(t)
	ref := f.push(t, "lab/x:1", makeImage(t, 1, ""))
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		if user, password, ok := r.BasicAuth(); ok && user == "ann" && password == "secret" {
			return false
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="lab"`)
		w.WriteHeader(http.StatusUnauthorized)
		return true
	})
	if err := pullInto(t, t.Context(), newDir(t), Options{Keychain: keychain{"ann", "wrong"}}, ref); !problem.Is(err, problem.RegistryDenied) {
		t.Errorf("with a wrong password: %v", err)
	}
	if err := pullInto(t, t.Context(), newDir(t), Options{Keychain: keychain{"ann", "secret"}}, ref); err != nil {
		t.Errorf("with the right password: %v", err)
	}
}

type keychain struct{ user, password string }

func (k keychain) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: k.user, Password: k.password}, nil
}
