package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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

// faulty is a registry in this process whose answers a test can replace. It is a transport, so that its answers take no
// time and a test can use the time of testing/synctest.
type faulty struct {
	host  string
	inner http.Handler

	mu sync.Mutex
	// fault is called for every request; where it returns true it has answered.
	fault    func(http.ResponseWriter, *http.Request) bool
	requests []request
}

// request is a request that the registry got, and when.
type request struct {
	what string
	at   time.Time
}

func newRegistry(t *testing.T) *faulty {
	t.Helper()
	return &faulty{inner: registry.New(registry.Logger(log.New(io.Discard, "", 0))), host: "127.0.0.1:5000"}
}

// RoundTrip answers as a server would: the body comes while the handler writes it, and is cut where the handler panics.
func (f *faulty) RoundTrip(r *http.Request) (*http.Response, error) {
	if !strings.HasPrefix(r.URL.Host, f.host) {
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: errors.New("connection refused")}
	}
	body, sink := io.Pipe()
	w := &answer{header: http.Header{}, sink: sink, started: make(chan struct{})}
	served := r.Clone(r.Context())
	if served.Body == nil {
		served.Body = http.NoBody
	}
	go func() {
		defer func() {
			switch failure := recover(); failure {
			case nil:
				w.WriteHeader(http.StatusOK)
				sink.Close()
			case http.ErrAbortHandler:
				w.WriteHeader(http.StatusOK)
				sink.CloseWithError(io.ErrUnexpectedEOF)
			default:
				panic(failure)
			}
		}()
		f.ServeHTTP(w, served)
	}()
	select {
	case <-w.started:
	case <-r.Context().Done():
		body.Close()
		return nil, context.Cause(r.Context())
	}
	out := &http.Response{
		StatusCode: w.status, Status: fmt.Sprintf("%d %s", w.status, http.StatusText(w.status)), Proto: "HTTP/1.1",
		ProtoMajor: 1, ProtoMinor: 1,
		Header: w.header, ContentLength: -1, Body: &piped{PipeReader: body, ctx: r.Context()}, Request: r,
	}
	if size, err := strconv.ParseInt(w.header.Get("Content-Length"), 10, 64); err == nil {
		out.ContentLength = size
	}
	if r.Method == http.MethodHead {
		body.Close()
		out.Body = http.NoBody
	}
	return out, nil
}

// answer is what a handler writes.
type answer struct {
	header  http.Header
	sink    *io.PipeWriter
	started chan struct{}
	status  int
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status, a.header = status, a.header.Clone()
		close(a.started)
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.sink.Write(p)
}

// piped is the body of an answer; reading it ends with the request's context.
type piped struct {
	*io.PipeReader
	ctx context.Context
}

func (p *piped) Read(b []byte) (int, error) {
	stop := context.AfterFunc(p.ctx, func() { p.CloseWithError(p.ctx.Err()) })
	defer stop()
	return p.PipeReader.Read(b)
}

func (f *faulty) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	f.requests = append(f.requests,
		request{strings.TrimSpace(r.Method + " " + r.URL.Path + " " + r.Header.Get("Range")), time.Now()})
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
		if !slices.ContainsFunc(parts, func(part string) bool { return !strings.Contains(r.what, part) }) {
			out = append(out, r.what)
		}
	}
	return out
}

// waits lists the times between the requests for the same thing since the last set.
func (f *faulty) waits() []time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	last := map[string]time.Time{}
	var out []time.Duration
	for _, r := range f.requests {
		thing := strings.Join(strings.Fields(r.what)[:2], " ")
		if before, again := last[thing]; again && !strings.HasSuffix(thing, "/v2/") {
			out = append(out, r.at.Sub(before))
		}
		last[thing] = r.at
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
	if err := remote.Write(ref, img, remote.WithTransport(f)); err != nil {
		t.Fatal(err)
	}
	f.set(nil)
	return ref.String()
}

// pullInto pulls into a folder and commits.
func (f *faulty) pullInto(t *testing.T, ctx context.Context, dir string, options Options, refs ...string) error {
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
	options.Transport = f
	if err := Pull(ctx, refs, amd64, w, options); err != nil {
		return err
	}
	return w.Commit()
}

// synctestRun runs a subtest with the time of testing/synctest.
func synctestRun(t *testing.T, name string, test func(*testing.T)) {
	t.Run(name, func(t *testing.T) { synctest.Test(t, test) })
}

func newDir(t *testing.T) string { return filepath.Join(t.TempDir(), "bundle") }

func TestPullTakesThePlatformsImage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRegistry(t)
		ours := makeImage(t, 2, "")
		plain := makeOf(t, types.DockerManifestSchema2, types.DockerLayer, 32<<10, 2, "")
		theirs, err := mutate.ConfigFile(makeImage(t, 2, ""), &v1.ConfigFile{OS: "linux", Architecture: "arm64"})
		if err != nil {
			t.Fatal(err)
		}
		index := mutate.AppendManifests(empty.Index,
			mutate.IndexAddendum{
				Add:        theirs,
				Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64", Variant: "v8"}},
			},
			mutate.IndexAddendum{Add: ours, Descriptor: v1.Descriptor{Platform: &amd64}})
		tag, err := name.NewTag(f.host + "/lab/several:1")
		if err != nil {
			t.Fatal(err)
		}
		if err := remote.WriteIndex(tag, index, remote.WithTransport(f)); err != nil {
			t.Fatal(err)
		}
		indexDigest, err := index.Digest()
		if err != nil {
			t.Fatal(err)
		}
		refs := []string{f.push(t, "lab/plain:1", plain), tag.String() + "@" + indexDigest.String()}
		dir := newDir(t)
		var last sync.Map
		if err := f.pullInto(t, t.Context(), dir, Options{Progress: func(p Progress) { last.Store(p.Ref, p) }},
			refs...); err != nil {
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
			if got := p.(Progress); !got.Finished || got.Done != got.Total || got.Fetched != got.Total ||
				got.Total == 0 {
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
		if err := f.pullInto(t, t.Context(), dir, Options{}, refs...); err != nil {
			t.Fatal(err)
		}
		if got := f.asked("GET", "/lab/"); len(got) > 0 {
			t.Errorf("fetched again: %v", got)
		}
	})
}

func TestPullWaitsAsLongAsTheRegistryAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
		var messages []string
		options := Options{Progress: func(p Progress) { messages = append(messages, p.Message) }}
		if err := f.pullInto(t, t.Context(), newDir(t), options, ref); err != nil {
			t.Fatal(err)
		}
		waits := f.waits()
		if len(waits) != 5 { // tag, manifest, config, two layers
			t.Errorf("%d waits, want 5: %v", len(waits), waits)
		}
		for _, d := range waits {
			if d != 7*time.Second {
				t.Errorf("waited %s, want the 7 s that were asked for", d)
			}
		}
		if !slices.ContainsFunc(messages, func(m string) bool {
			return strings.Contains(m, "429 Too Many Requests; trying again in 7s")
		}) {
			t.Errorf("no message: %q", messages)
		}
	})
}

func TestPullGoesOnWhereAConnectionWasCut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRegistry(t)
		ref, layer := f.pushOneLayer(t)
		cuts := 0
		f.set(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, layer) || cuts == 3 {
				return false
			}
			cuts++
			return f.cut(w, r)
		})
		if err := f.pullInto(t, t.Context(), newDir(t), Options{}, ref); err != nil {
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
		if waits := f.waits(); len(waits) != 3 || waits[2] > 2*firstWait {
			t.Errorf("waits %v: they should not grow while more comes", waits)
		}
	})
}

// Registries redirect requests for blobs to a content delivery network: the rest of a blob is asked for there too.
func TestPullContinuesABlobThatIsRedirected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRegistry(t)
		ref, layer := f.pushOneLayer(t)
		cuts := 0
		f.set(func(w http.ResponseWriter, r *http.Request) bool {
			digest, redirected := strings.CutPrefix(r.URL.Path, "/network/")
			if !redirected && strings.Contains(r.URL.Path, "/blobs/") {
				http.Redirect(w, r, "http://"+f.host+"/network/"+filepath.Base(r.URL.Path),
					http.StatusTemporaryRedirect)
				return true
			}
			if !redirected {
				return false
			}
			r.URL.Path = "/v2/lab/x/blobs/" + digest
			if digest != layer || cuts == 2 {
				f.inner.ServeHTTP(w, r)
				return true
			}
			cuts++
			return f.cut(w, r)
		})
		dir := newDir(t)
		if err := f.pullInto(t, t.Context(), dir, Options{}, ref); err != nil {
			t.Fatal(err)
		}
		got := f.asked("/network/" + layer)
		if len(got) != 3 || !strings.Contains(got[1], "bytes=307200-") || !strings.Contains(got[2], "bytes=614400-") {
			t.Errorf("the network was asked for %v", got)
		}
		if err := openBundle(t, dir).Verify(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A registry that sends nothing more for a minute counts as cut, and one that ignores the range sends the blob again.
func TestPullGivesUpAStalledConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newRegistry(t)
		ref, layer := f.pushOneLayer(t)
		stalled := false
		f.set(func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.Contains(r.URL.Path, layer) {
				return false
			}
			r.Header.Del("Range")
			if stalled {
				return false
			}
			stalled = true
			f.inner.ServeHTTP(&cutting{ResponseWriter: w, left: 300 << 10}, r)
			<-r.Context().Done()
			return true
		})
		dir := newDir(t)
		if err := f.pullInto(t, t.Context(), dir, Options{}, ref); err != nil {
			t.Fatal(err)
		}
		if waits := f.waits(); len(waits) != 1 || waits[0] < stall || waits[0] > stall+2*firstWait {
			t.Errorf("waits %v", waits)
		}
		if err := openBundle(t, dir).Verify(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestPullOverTCP pulls from a server, with the transport that the lab uses, a blob whose connection is cut and one
// that is redirected.
func TestPullOverTCP(t *testing.T) {
	f := newRegistry(t)
	img := makeSized(t, 1<<20, 2, "")
	ref := strings.Replace(f.push(t, "lab/x:1", img), f.host+"/", "", 1)
	layers := layersOf(t, img)
	cut := false
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		switch {
		case strings.HasSuffix(r.URL.Path, layers[0].String()) && !cut:
			cut = true
			return f.cut(w, r)
		case r.URL.Path == "/v2/lab/x/blobs/"+layers[1].String():
			http.Redirect(w, r, "/network/"+layers[1].String(), http.StatusTemporaryRedirect)
			return true
		case strings.HasPrefix(r.URL.Path, "/network/"):
			r.URL.Path = "/v2/lab/x/blobs/" + layers[1].String()
		}
		return false
	})
	server := httptest.NewServer(f)
	defer server.Close()
	dir := newDir(t)
	w := create(t, dir)
	ref = strings.TrimPrefix(server.URL, "http://") + "/" + ref
	if err := errors.Join(Pull(t.Context(), []string{ref}, amd64, w, Options{}), w.Commit()); err != nil {
		t.Fatal(err)
	}
	if got := f.asked(layers[0].String(), "bytes="); len(got) != 1 {
		t.Errorf("the rest of the layer was asked for with %v", got)
	}
	if err := openBundle(t, dir).Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// pushOneLayer pushes an image of one layer of a MiB, and gives its reference and the layer's digest.
func (f *faulty) pushOneLayer(t *testing.T) (ref, layer string) {
	t.Helper()
	img := makeSized(t, 1<<20, 1, "")
	return f.push(t, "lab/x:1", img), layersOf(t, img)[0].String()
}

// cut closes the connection in the middle of the body, after 300 KiB.
func (f *faulty) cut(w http.ResponseWriter, r *http.Request) bool {
	f.inner.ServeHTTP(&cutting{ResponseWriter: w, left: 300 << 10}, r)
	panic(http.ErrAbortHandler)
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
	synctest.Test(t, func(t *testing.T) {
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
		if err := f.pullInto(t, ctx, dir, options, refs...); !errors.Is(err, why) {
			t.Fatalf("the first run ended with %v", err)
		}
		if _, err := Open(dir); !problem.Is(err, problem.BundleUnfinished) {
			t.Errorf("after the first run: %v", err)
		}
		f.set(nil)
		if err := f.pullInto(t, t.Context(), dir, Options{}, refs...); err != nil {
			t.Fatal(err)
		}
		config, err := second.ConfigName() // it may have been on its way too
		if err != nil {
			t.Fatal(err)
		}
		want := []string{"GET /v2/lab/second/blobs/" + cutLayer}
		got := slices.DeleteFunc(f.asked("GET /v2/lab/"),
			func(r string) bool { return strings.Contains(r, config.String()) })
		if len(got) != 1 || !strings.HasPrefix(got[0], want[0]) || !strings.Contains(got[0], "bytes=") ||
			strings.Contains(got[0], "bytes=0-") {
			t.Errorf("the second run asked for %v, want only the rest of %v", got, want)
		}
		if err := openBundle(t, dir).Verify(t.Context()); err != nil {
			t.Error(err)
		}
	})
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
		"manifest": {ref, answer(digest, `{"schemaVersion":2}`), "when asked for " + digest},
		"pinned":   {ref + "@" + other, answer(other, `{"schemaVersion":2}`), "when asked for " + other},
		"layer": {
			ref, answer(layer, strings.Repeat("x", int(length))),
			"serves something else as blob " + layer,
		},
		"too long layer": {
			ref, answer(layer, strings.Repeat("x", int(length)+9)),
			"serves something else as blob " + layer,
		},
	}
	for name, test := range tests {
		synctestRun(t, name, func(t *testing.T) {
			f.set(test.fault)
			dir := newDir(t)
			err := f.pullInto(t, t.Context(), dir, Options{}, test.ref)
			if !problem.Is(err, problem.DigestMismatch) || !strings.Contains(err.Error(), test.says) ||
				!strings.Contains(err.Error(), "/lab/x:1") {
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
	synctest.Test(t, func(t *testing.T) {
		if err := f.pullInto(t, t.Context(), newDir(t), Options{}, ref); err != nil || !once {
			t.Errorf("altered once: %v", err)
		}
	})
}

func TestPullUsesTheUsersCredentials(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
		if err := f.pullInto(t, t.Context(), newDir(t), Options{Keychain: keychain{"ann", "wrong"}},
			ref); !problem.Is(err, problem.RegistryDenied) {
			t.Errorf("with a wrong password: %v", err)
		}
		if err := f.pullInto(t, t.Context(), newDir(t), Options{Keychain: keychain{"ann", "secret"}}, ref); err != nil {
			t.Errorf("with the right password: %v", err)
		}
	})
}

type keychain struct{ user, password string }

func (k keychain) Resolve(authn.Resource) (authn.Authenticator, error) {
	return &authn.Basic{Username: k.user, Password: k.password}, nil
}
