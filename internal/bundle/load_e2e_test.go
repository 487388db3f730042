//go:build e2e

package bundle

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"sigs.k8s.io/kind/pkg/cluster/nodes"
	"sigs.k8s.io/kind/pkg/cluster/nodeutils"
)

// wipe removes the images from all nodes again, under every name that they were given, with their content and
// snapshots, and waits until the disk is at rest: what one way left must not affect the next one.
func (b *testCluster) wipe(tb testing.TB) {
	tb.Helper()
	for _, n := range b.nodes {
		names := slices.DeleteFunc(b.images(tb, n), func(name string) bool { return slices.Contains(b.own, name) })
		b.must(tb, n, append([]string{"ctr", "--namespace=k8s.io", "images", "rm", "--sync"}, names...)...)
		if left := b.must(tb, n, "ctr", "--namespace=k8s.io", "snapshots", "ls"); len(b.own) == 0 &&
			strings.Count(left, "\n") > 1 {
			tb.Fatalf("%s still has snapshots:\n%s", n, left)
		}
	}
	b.must(tb, b.nodes[0], "sync")
}

// images lists the names of a node's images.
func (b *testCluster) images(tb testing.TB, n nodes.Node) []string {
	tb.Helper()
	return strings.Fields(b.must(tb, n, "ctr", "--namespace=k8s.io", "images", "ls", "-q"))
}

// must runs a command in a node and gives its output.
func (b *testCluster) must(tb testing.TB, n nodes.Node, args ...string) string {
	tb.Helper()
	var out, said bytes.Buffer
	if err := n.CommandContext(tb.Context(), args[0], args[1:]...).SetStdout(&out).SetStderr(&said).Run(); err != nil {
		tb.Fatalf("%s: %v: %v: %s", n, args, err, &said)
	}
	return out.String()
}

// kindLoad does what `kind load image-archive` does with all nodes (kind v0.33, pkg/cmd/kind/load/image-archive).
func (b *testCluster) kindLoad(tb testing.TB, archive string) {
	tb.Helper()
	var wg sync.WaitGroup
	for _, n := range b.nodes {
		wg.Go(func() {
			f, err := os.Open(archive)
			if err != nil {
				tb.Error(err)
				return
			}
			defer f.Close()
			if err := nodeutils.LoadImageArchive(n, f); err != nil {
				tb.Error(err)
			}
		})
	}
	wg.Wait()
}

// archive writes the images for nodes into one OCI archive, for kind.
func (b *testCluster) archive(tb testing.TB) string {
	tb.Helper()
	dir := filepath.Join(tb.TempDir(), "images")
	w, err := Create(dir)
	if err != nil {
		tb.Fatal(err)
	}
	for _, ref := range b.refs {
		e, err := b.bundle.Lookup(ref)
		if err != nil {
			tb.Fatal(err)
		}
		img, err := b.bundle.Image(ref)
		if err != nil {
			tb.Fatal(err)
		}
		if err := w.Add(tb.Context(), ref, img, e.Substitute); err != nil {
			tb.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		tb.Fatal(err)
	}
	return pack(tb, dir, "")
}

// BenchmarkLoadIntoThreeNodes measures, in one run on the same three nodes, what it takes until they have all images of
// the bundle: by this package (lab), and by what `kind load image-archive` does (kind). Seconds of the clock are -s,
// seconds of the nodes' CPUs are -cpu-s; the latter do not depend on other load of the machine.
func BenchmarkLoadIntoThreeNodes(b *testing.B) {
	lab := newContainerds(b)
	archive := lab.archive(b)
	// A temporary file from here on would fail.
	b.Setenv("TMPDIR", filepath.Join(b.TempDir(), "absent"))
	ways := []struct {
		name string
		load func()
	}{
		{"kind", func() { lab.kindLoad(b, archive) }},
		{"lab", func() { lab.load(b) }},
	}
	wall, cpu := map[string]time.Duration{}, map[string]time.Duration{}
	b.ResetTimer()
	for range b.N {
		for _, way := range ways {
			burnt, started := lab.cpu(b), time.Now()
			way.load()
			wall[way.name] += time.Since(started)
			cpu[way.name] += lab.cpu(b) - burnt
			lab.wipe(b)
		}
	}
	for _, way := range ways {
		b.ReportMetric(wall[way.name].Seconds()/float64(b.N), way.name+"-s")
		b.ReportMetric(cpu[way.name].Seconds()/float64(b.N), way.name+"-cpu-s")
	}
	b.ReportMetric(wall["lab"].Seconds()/wall["kind"].Seconds(), "lab/kind")
	b.ReportMetric(0, "ns/op")
}

// cpu is the CPU time that the nodes have used so far.
func (b *testCluster) cpu(tb testing.TB) time.Duration {
	tb.Helper()
	var total time.Duration
	for _, name := range b.names {
		answer, err := b.docker.ContainerStats(tb.Context(), name, client.ContainerStatsOptions{})
		if err != nil {
			tb.Fatal(err)
		}
		var stats container.StatsResponse
		err = json.NewDecoder(answer.Body).Decode(&stats)
		if err := errors.Join(err, answer.Body.Close()); err != nil {
			tb.Fatal(err)
		}
		total += time.Duration(stats.CPUStats.CPUUsage.TotalUsage)
	}
	return total
}

func (b *testCluster) load(tb testing.TB) {
	tb.Helper()
	reports, err := LoadNodes(tb.Context(), b.docker, b.bundle, b.refs, b.names)
	if err != nil {
		tb.Fatal(err)
	}
	for _, r := range reports {
		if len(r.Loaded) != len(b.refs) {
			tb.Fatalf("%s got %d of %d images", r.Node, len(r.Loaded), len(b.refs))
		}
	}
}

// TestLoadIntoNodes loads a bundle into a cluster made from it, starts a pod on each node from an image that the node
// has not unpacked yet, and looks that a second load sends nothing.
func TestLoadIntoNodes(t *testing.T) {
	lab := newCluster(t)
	lab.load(t)
	for _, n := range lab.nodes {
		lab.runPod(t, n, "docker.io/mccutchen/go-httpbin:v2.26.0")
	}
	again, err := LoadNodes(t.Context(), lab.docker, lab.bundle, lab.refs, lab.names)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range again {
		if r.Sent != 0 || !slices.Equal(r.Held, lab.refs) {
			t.Errorf("the second load sent %s %d bytes", r.Node, r.Sent)
		}
	}
}

// runPod runs an image as a pod on a node, never pulling it, until it is ready.
func (b *testCluster) runPod(t *testing.T, n nodes.Node, image string) {
	t.Helper()
	planes, err := nodeutils.ControlPlaneNodes(b.nodes)
	if err != nil {
		t.Fatal(err)
	}
	kubectl := []string{"kubectl", "--kubeconfig=/etc/kubernetes/admin.conf"}
	started := time.Now()
	b.must(t, planes[0], append(kubectl, "run", "on-"+n.String(), "--image="+image, "--image-pull-policy=Never",
		`--overrides={"spec":{"nodeName":"`+n.String()+`"}}`)...)
	b.must(t, planes[0], append(kubectl, "wait", "pod/on-"+n.String(), "--for=condition=Ready", "--timeout=3m")...)
	t.Logf("a pod of %s was ready on %s after %s", image, n, time.Since(started).Round(time.Millisecond))
}
