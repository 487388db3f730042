package bundle

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"

	"ambientlab/internal/problem"
)

// writerDir tells a process of this test that it is the writer, and where it writes.
const writerDir = "BUNDLE_TEST_WRITER_DIR"

// killedImages is how many images the writer adds.
const killedImages = 5

// TestWriterProcess is no test: it is what TestAKilledWriterLeavesNoBundle kills.
func TestWriterProcess(t *testing.T) {
	dir := os.Getenv(writerDir)
	if dir == "" {
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

// A writer that is killed after any number of images leaves no bundle, and the next one
// goes on from there.
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
