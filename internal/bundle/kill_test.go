package bundle

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"ambientlab/internal/problem"
)

// writerDir tells a process of this test that it is the writer, and where it writes.
const writerDir = "AMBIENTLAB_TEST_WRITER_DIR"

// killedImages is how many images the writer adds.
const killedImages = 5

// TestWriterProcess is not a test: TestAKilledWriterLeavesNoBundle runs it as another process.
func TestWriterProcess(t *testing.T) {
	dir := os.Getenv(writerDir)
	if dir == "" || os.Getenv(pullRef) != "" {
		return
	}
	source, err := layout.FromPath(filepath.Join(dir, "source"))
	if err != nil {
		t.Fatal(err)
	}
	index, err := source.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := index.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	w := create(t, filepath.Join(dir, "bundle"))
	for i, d := range manifest.Manifests {
		img, err := index.Image(d.Digest)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Add(t.Context(), fmt.Sprintf("a.example/x:%d", i), img, ""); err != nil {
			t.Fatal(err)
		}
		fmt.Println("added")
	}
	// The bundle is finished only when the input ends, so that a kill never comes too late.
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

// A writer that is killed after any number of images leaves no bundle, and the next writer uses its blobs.
func TestAKilledWriterLeavesNoBundle(t *testing.T) {
	dir := t.TempDir()
	images := map[string]v1.Image{}
	for i := range killedImages {
		images[fmt.Sprintf("a.example/x:%d", i)] = makeSized(t, 256<<10, 2, "")
	}
	writeBundle(t, filepath.Join(dir, "source"), images)
	for after := 1; after <= killedImages; after++ {
		writer := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestWriterProcess$")
		writer.Env = append(os.Environ(), writerDir+"="+dir)
		out, err := writer.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		in, err := writer.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := writer.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		for range after {
			if !lines.Scan() {
				t.Fatal("the writer ended too soon")
			}
		}
		end := in.Close
		if after < killedImages {
			end = writer.Process.Kill
		}
		if err := end(); err != nil {
			t.Fatal(err)
		}
		for lines.Scan() { // Wait wants the output read
		}
		if err := writer.Wait(); (err != nil) != (after < killedImages) {
			t.Fatalf("the writer ended with %v", err)
		}
		b, err := Open(filepath.Join(dir, "bundle"))
		if after < killedImages {
			if !problem.Is(err, problem.BundleUnfinished) {
				t.Errorf("killed after %d images: %v", after, err)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := b.Verify(t.Context()); err != nil || len(b.Images()) != killedImages {
			t.Errorf("%d images, %v", len(b.Images()), err)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

// pullRef is the variable that makes TestPullProcess pull a reference into the folder of writerDir.
const pullRef = "AMBIENTLAB_TEST_PULL_REF"

// TestPullProcess is not a test: TestAKilledPullContinues runs it as another process.
func TestPullProcess(t *testing.T) {
	ref := os.Getenv(pullRef)
	if ref == "" {
		return
	}
	w := create(t, os.Getenv(writerDir))
	if err := Pull(t.Context(), []string{ref}, amd64, w, Options{}); err != nil {
		t.Fatal(err)
	}
}

// A pull that is killed in the middle of a blob leaves no bundle, and the next one asks only for the rest of the blob.
func TestAKilledPullContinues(t *testing.T) {
	f := newRegistry(t)
	img := makeSized(t, 1<<20, 1, "")
	ref := strings.TrimPrefix(f.push(t, "lab/x:1", img), f.host)
	layer := layersOf(t, img)[0].String()
	config, err := img.ConfigName()
	if err != nil {
		t.Fatal(err)
	}
	const sent = 300 << 10
	var configDone, half sync.WaitGroup
	configDone.Add(1)
	half.Add(1)
	f.set(func(w http.ResponseWriter, r *http.Request) bool {
		switch filepath.Base(r.URL.Path) {
		case config.String():
			f.inner.ServeHTTP(w, r)
			configDone.Done()
			return true
		case layer:
			f.inner.ServeHTTP(&cutting{ResponseWriter: w, left: sent}, r)
			half.Done()
			<-r.Context().Done()
			return true
		}
		return false
	})
	server := httptest.NewServer(f)
	defer server.Close()
	ref = strings.TrimPrefix(server.URL, "http://") + ref
	dir := newDir(t)
	pull := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestPullProcess$")
	pull.Env = append(os.Environ(), writerDir+"="+dir, pullRef+"="+ref)
	if err := pull.Start(); err != nil {
		t.Fatal(err)
	}
	half.Wait()
	configDone.Wait()
	partial := filepath.Join(dir, partialDir, strings.TrimPrefix(layer, "sha256:"))
	blob := blobPath(dir, config)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		part, err := os.Stat(partial)
		_, configErr := os.Stat(blob)
		if err == nil && configErr == nil && part.Size() == sent {
			break
		}
	}
	if err := pull.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = pull.Wait() // it was killed
	if _, err := Open(dir); !problem.Is(err, problem.BundleUnfinished) {
		t.Errorf("after the kill: %v", err)
	}
	f.set(nil)
	w := create(t, dir)
	if err := errors.Join(Pull(t.Context(), []string{ref}, amd64, w, Options{}), w.Commit()); err != nil {
		t.Fatal(err)
	}
	if got := f.asked("GET /v2/lab/"); len(got) != 1 ||
		!strings.HasSuffix(got[0], fmt.Sprintf("%s bytes=%d-%d", layer, sent, sizeOf(t, img)-1)) {
		t.Errorf("the second pull asked for %v", got)
	}
	if err := openBundle(t, dir).Verify(t.Context()); err != nil {
		t.Error(err)
	}
}

// sizeOf is the size of an image's first layer.
func sizeOf(t *testing.T, img v1.Image) int64 {
	t.Helper()
	manifest, err := img.Manifest()
	if err != nil {
		t.Fatal(err)
	}
	return manifest.Layers[0].Size
}
