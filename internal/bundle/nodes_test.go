package bundle

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ambientlab/internal/problem"
)

// threeImages writes a bundle of three images, the last two of which share layers.
func threeImages(t testing.TB) (*Bundle, []string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "bundle")
	shared := makeImage(t, 3, "")
	writeBundle(t, dir,
		map[string]v1.Image{
			"a.example/one:1": makeImage(t, 2, ""), "a.example/two:1": shared,
			"a.example/three:1": shared,
		})
	return openBundle(t, dir), []string{"a.example/one:1", "a.example/two:1", "a.example/three:1"}
}

// total is the size of a bundle's blobs, each once.
func total(b *Bundle) int64 {
	var sum int64
	seen := map[v1.Hash]bool{}
	for _, e := range b.entries {
		for _, d := range e.blobs {
			if !seen[d.Digest] {
				sum += d.Size
			}
			seen[d.Digest] = true
		}
	}
	return sum
}

func TestLoadNodes(t *testing.T) {
	b, refs := threeImages(t)
	docker := newFakeNodes(t, "n1", "n2", "n3")
	reports, err := LoadNodes(t.Context(), docker, b, refs, []string{"n1", "n2", "n3"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reports {
		if !slices.Equal(r.Loaded, refs) || r.Sent != total(b) {
			t.Errorf("%s: loaded %v, sent %d", r.Node, r.Loaded, r.Sent)
		}
		n := docker.nodes[r.Node]
		if got := n.images["a.example/two:1"]; got != b.entries[0].Digest.String() &&
			got != b.entries[2].Digest.String() {
			t.Errorf("%s has %v", r.Node, n.images)
		}
		if args := strings.Join(n.imports[0],
			" "); args != "ctr --namespace=k8s.io images import --local --all-platforms --no-unpack -" {
			t.Errorf("%s ran %s", r.Node, args)
		}
	}
	// A second time nothing is sent.
	reports, err = LoadNodes(t.Context(), docker, b, refs, []string{"n1", "n2", "n3"})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range reports {
		if !slices.Equal(r.Held, refs) || r.Sent != 0 || len(docker.nodes[r.Node].imports) != 1 {
			t.Errorf("second time: %+v", r)
		}
	}
}

// A reference that a node had with another digest is reported as replaced, one that it lacked is not.
func TestReplacedImagesAreNamed(t *testing.T) {
	b, refs := threeImages(t)
	docker := newFakeNodes(t, "n1")
	docker.nodes["n1"].images[refs[0]] = "sha256:" + strings.Repeat("0", 64)
	reports, err := LoadNodes(t.Context(), docker, b, refs, []string{"n1"})
	if err != nil {
		t.Fatal(err)
	}
	if got := reports[0]; !slices.Equal(got.Replaced, refs[:1]) || len(got.Loaded) != len(refs) {
		t.Errorf("replaced %v, loaded %v of %v", got.Replaced, got.Loaded, refs)
	}
}

func TestNodesThatNeedDifferentImages(t *testing.T) {
	b, refs := threeImages(t)
	docker := newFakeNodes(t, "all", "first", "last", "none", "stale")
	give := func(node string, refs ...string) {
		for _, ref := range refs {
			e, err := b.find(ref)
			if err != nil {
				t.Fatal(err)
			}
			docker.nodes[node].images[e.Ref] = e.Digest.String()
			for _, d := range e.blobs {
				docker.nodes[node].blobs[d.Digest.String()] = true
			}
		}
	}
	give("first", refs[1:]...)
	give("last", refs[:2]...)
	give("none", refs...)
	docker.nodes["stale"].images[refs[0]] = "sha256:" + strings.Repeat("0", 64)
	names := []string{"all", "first", "last", "none", "stale"}
	missing, err := MissingInNodes(t.Context(), docker, b, refs, names)
	if err != nil {
		t.Fatal(err)
	}
	reports, err := LoadNodes(t.Context(), docker, b, refs, names)
	if err != nil {
		t.Fatal(err)
	}
	want := [][]string{refs, refs[:1], refs[2:], nil, refs}
	for i, r := range reports {
		if !slices.Equal(r.Loaded, want[i]) || !slices.Equal(missing[r.Node], want[i]) {
			t.Errorf("%s: loaded %v, missing %v, want %v", r.Node, r.Loaded, missing[r.Node], want[i])
		}
		if r.Node == "last" && r.Sent != 0 {
			t.Errorf("an image whose layers the node has in another one cost %d bytes", r.Sent)
		}
	}
}

func TestAFailedNodeIsNamedAndTheOthersFinish(t *testing.T) {
	b, refs := threeImages(t)
	docker := newFakeNodes(t, "n1", "n2", "n3", "n4")
	docker.nodes["n2"].during = func(blobs int) error {
		if blobs == 2 {
			return errors.New("write /var/lib/containerd: no space left on device")
		}
		return nil
	}
	docker.nodes["n4"].forgetful = true
	reports, err := LoadNodes(t.Context(), docker, b, refs, []string{"n1", "n2", "n3", "n4", "absent"})
	for _, want := range []string{
		"loading images into node n2: `docker exec n2 ctr --namespace=k8s.io images import --local --all-platforms " +
			"--no-unpack -` ended with exit code 1: ctr: write /var/lib/containerd: no space left on device",
		"loading images into node n4: its containerd imported the images without an error, but lacks a.example/one:1",
		"loading images into node absent: running ctr --namespace=k8s.io images check in container absent: " +
			"No such container: absent",
	} {
		if !problem.Is(err, problem.ImageLoadFailed) || !strings.Contains(err.Error(), want) {
			t.Errorf("the error\n%v\ndoes not say\n%s", err, want)
		}
	}
	if got := len(problem.All(err)); got != 3 {
		t.Errorf("%d problems, want 3", got)
	}
	for i, failed := range []bool{false, true, false, true, true} {
		if (reports[i].Err != nil) != failed || !failed && !slices.Equal(reports[i].Loaded, refs) {
			t.Errorf("%+v", reports[i])
		}
	}
}

// A node that is slow must not delay the others: here it continues only when both others have all images, once before
// it says what it has and once while it imports.
func TestASlowNodeDoesNotDelayTheOthers(t *testing.T) {
	for _, importing := range []bool{false, true} {
		b, refs := threeImages(t)
		docker := newFakeNodes(t, "fast1", "slow", "fast2")
		others := make(chan struct{})
		var done sync.WaitGroup
		done.Add(2)
		for _, name := range []string{"fast1", "fast2"} {
			checks := 0
			docker.nodes[name].checking = func() {
				if checks++; checks == 2 { // after its import
					done.Done()
				}
			}
		}
		go func() { done.Wait(); close(others) }()
		if importing {
			docker.nodes["slow"].during = func(int) error { <-others; return nil }
		} else {
			docker.nodes["slow"].checking = func() { <-others }
		}
		reports, err := LoadNodes(t.Context(), docker, b, refs, []string{"fast1", "slow", "fast2"})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range reports {
			if !slices.Equal(r.Loaded, refs) {
				t.Errorf("%s loaded %d images", r.Node, len(r.Loaded))
			}
		}
	}
}

func TestCancellingEndsALoad(t *testing.T) {
	b, refs := threeImages(t)
	docker := newFakeNodes(t, "stuck", "fine")
	ctx, cancel := context.WithCancelCause(t.Context())
	release := make(chan struct{})
	defer close(release)
	stuck, fine := make(chan struct{}), make(chan struct{})
	docker.nodes["stuck"].during = func(blobs int) error {
		if blobs == 1 {
			close(stuck)
		}
		<-release
		return nil
	}
	docker.nodes["fine"].checked = func(images int) {
		if images > 0 { // after its import
			close(fine)
		}
	}
	why := errors.New("interrupted")
	go func() { <-stuck; <-fine; cancel(why) }()
	reports, err := LoadNodes(ctx, docker, b, refs, []string{"stuck", "fine"})
	if !errors.Is(err, why) || !errors.Is(reports[0].Err, why) {
		t.Errorf("%v, %+v", err, reports)
	}
}

func TestAnAlteredBundleIsNotLoaded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundle")
	img := makeImage(t, 3, "")
	writeBundle(t, dir, map[string]v1.Image{"a.example/x:1": img})
	for _, layer := range layersOf(t, img) {
		flip(t, blobPath(dir, layer))
		docker := newFakeNodes(t, "n1", "n2")
		_, err := LoadNodes(t.Context(), docker, openBundle(t, dir), []string{"a.example/x:1"}, []string{"n1", "n2"})
		if !problem.Is(err, problem.BundleCorrupt) || problem.Is(err, problem.ImageLoadFailed) ||
			!strings.Contains(err.Error(), layer.String()) {
			t.Errorf("loading: %v", err)
		}
		for name, n := range docker.nodes {
			if len(n.images) > 0 {
				t.Errorf("%s has %v", name, n.images)
			}
		}
		flip(t, blobPath(dir, layer))
	}
}

func TestReferencesWithADigestGetThatNameToo(t *testing.T) {
	b, _ := threeImages(t)
	e := b.entries[0]
	docker := newFakeNodes(t, "n1")
	if _, err := LoadNodes(t.Context(), docker, b, []string{e.Ref, e.Ref + "@" + e.Digest.String()},
		[]string{"n1"}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a.example/one:1", "a.example/one@" + e.Digest.String()} {
		if docker.nodes["n1"].images[name] != e.Digest.String() {
			t.Errorf("no %s in %v", name, docker.nodes["n1"].images)
		}
	}
}

//revive:disable:line-length-limit the table is as ctr prints it

func TestParseCheck(t *testing.T) {
	const table = `REF                                     TYPE                                       DIGEST     STATUS           SIZE                UNPACKED
docker.io/istio/pilot:1.31.4-distroless application/vnd.oci.image.manifest.v1+json sha256:aa1 complete (4/4)   81.2 MiB/81.2 MiB   false
docker.io/istio/ztunnel:1.31.4          application/vnd.oci.image.manifest.v1+json sha256:aa2 incomplete (2/4) 10.0 MiB/81.2 MiB   false
docker.io/istio/proxyv2:1.31.4          application/vnd.oci.image.manifest.v1+json sha256:aa3 unavailable (0/?) 0.0 B/?            false
quay.io/metallb/speaker:v0.16.1         application/vnd.oci.image.manifest.v1+json sha256:aa4 error            -                   false
`
	got := parseCheck(table)
	if len(got) != 1 || got["docker.io/istio/pilot:1.31.4-distroless"] != "sha256:aa1" {
		t.Errorf("%v", got)
	}
}

//revive:enable:line-length-limit
