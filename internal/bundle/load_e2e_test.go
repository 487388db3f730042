//go:build e2e

package bundle

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/moby/moby/client"
	"sigs.k8s.io/kind/pkg/cluster"
	"sigs.k8s.io/kind/pkg/cluster/nodes"
	"sigs.k8s.io/kind/pkg/cluster/nodeutils"
)

// e2eCluster is the name of the cluster that these tests make and delete.
const e2eCluster = "bundle-e2e"

// bed is a kind cluster of three nodes, and the bundle that it was made from.
type bed struct {
	bundle *Bundle
	docker *client.Client
	// refs are the images that belong into nodes; names are the nodes' containers.
	refs, names []string
	nodes       []nodes.Node
}

// newBed makes the cluster from the bundle that SM_BUNDLE names.
func newBed(tb testing.TB) bed {
	tb.Helper()
	path := os.Getenv("SM_BUNDLE")
	if path == "" {
		tb.Fatal("SM_BUNDLE must name a bundle: `mage sm:bundle -from=source -to=DIR` makes one")
	}
	docker, err := client.New(client.FromEnv)
	if err != nil {
		tb.Fatal(err)
	}
	b := bed{bundle: openBundle(tb, path), docker: docker}
	var nodeImage NodeImage
	for _, e := range b.bundle.Images() {
		if !strings.HasPrefix(e.Ref, "docker.io/kindest/node:") {
			b.refs = append(b.refs, e.Ref)
		} else if nodeImage, err = LoadNodeImage(tb.Context(), docker, b.bundle, e.Ref); err != nil {
			tb.Fatal(err)
		}
	}
	provider := cluster.NewProvider(cluster.ProviderWithDocker())
	kubeconfig := filepath.Join(tb.TempDir(), "kubeconfig")
	tb.Cleanup(func() {
		if err := provider.Delete(e2eCluster, kubeconfig); err != nil {
			tb.Error(err)
		}
	})
	left, err := provider.ListInternalNodes(e2eCluster) // of a run that was killed
	if err != nil {
		tb.Fatal(err)
	}
	if len(left) > 0 {
		tb.Logf("using the cluster %s that an earlier run left", e2eCluster)
	} else if err := provider.Create(e2eCluster, cluster.CreateWithRawConfig(kindConfig(tb, docker)),
		cluster.CreateWithNodeImage(nodeImage.Ref), cluster.CreateWithKubeconfigPath(kubeconfig),
		cluster.CreateWithWaitForReady(3*time.Minute)); err != nil {
		tb.Fatal(err)
	}
	if b.nodes, err = provider.ListInternalNodes(e2eCluster); err != nil {
		tb.Fatal(err)
	}
	for _, n := range b.nodes {
		b.names = append(b.names, n.String())
	}
	return b
}

func kindConfig(tb testing.TB, docker *client.Client) []byte {
	tb.Helper()
	info, err := docker.Info(tb.Context(), client.InfoOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	config := "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes: [{role: control-plane}, {role: worker}, {role: worker}]\n"
	if info.Info.CgroupVersion == "1" { // which Kubernetes refuses by itself since 1.35
		config += "kubeadmConfigPatches: [\"kind: KubeletConfiguration\\nfailCgroupV1: false\\n\"]\n"
	}
	return []byte(config)
}

// wipe removes the images from all nodes again, with their content and snapshots.
func (b bed) wipe(ctx context.Context, tb testing.TB) {
	tb.Helper()
	for _, n := range b.nodes {
		args := append([]string{"--namespace=k8s.io", "images", "rm", "--sync"}, b.refs...)
		var out bytes.Buffer
		if err := n.CommandContext(ctx, "ctr", args...).SetStderr(&out).Run(); err != nil {
			tb.Fatalf("%v: %s", err, &out)
		}
	}
}

// kindLoad does what `kind load image-archive` does with all nodes
// (kind v0.33, pkg/cmd/kind/load/image-archive).
func (b bed) kindLoad(tb testing.TB, archive string) {
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

// archive writes the images that belong into nodes into one OCI archive, for kind.
func (b bed) archive(tb testing.TB) string {
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
	f, err := os.Create(dir + ".tar")
	if err != nil {
		tb.Fatal(err)
	}
	defer f.Close()
	if err := openBundle(tb, dir).WriteTar(f); err != nil {
		tb.Fatal(err)
	}
	return f.Name()
}

// BenchmarkLoadIntoThreeNodes measures, in one run on one cluster, how long it takes
// until three nodes have all images of the bundle: by this package as the lab uses it
// (lab-s), by this package with unpacking everywhere (unpack-s), and by what `kind load
// image-archive` does (kind-s).
func BenchmarkLoadIntoThreeNodes(b *testing.B) {
	lab := newBed(b)
	archive := lab.archive(b)
	// What wanted a temporary file from here on would fail.
	b.Setenv("TMPDIR", filepath.Join(b.TempDir(), "absent"))
	b.ResetTimer()
	var ours, unpacked, kinds time.Duration
	for range b.N {
		for _, way := range []struct {
			spent *time.Duration
			load  func()
		}{
			{&kinds, func() { lab.kindLoad(b, archive) }},
			{&ours, func() { lab.load(b, Loader{Docker: lab.docker, Bundle: lab.bundle}) }},
			{&unpacked, func() { lab.load(b, Loader{Docker: lab.docker, Bundle: lab.bundle, Unpack: true}) }},
		} {
			started := time.Now()
			way.load()
			*way.spent += time.Since(started)
			b.StopTimer()
			lab.wipe(b.Context(), b)
			b.StartTimer()
		}
	}
	n := float64(b.N)
	b.ReportMetric(ours.Seconds()/n, "lab-s")
	b.ReportMetric(unpacked.Seconds()/n, "unpack-s")
	b.ReportMetric(kinds.Seconds()/n, "kind-s")
	b.ReportMetric(ours.Seconds()/kinds.Seconds(), "lab/kind")
	b.ReportMetric(0, "ns/op")
}

func (b bed) load(tb testing.TB, l Loader) {
	tb.Helper()
	report, err := l.Load(tb.Context(), b.refs, b.names)
	if err != nil {
		tb.Fatal(err)
	}
	for _, r := range report.Nodes {
		if len(r.Loaded) != len(b.refs) {
			tb.Fatalf("%s got %d of %d images", r.Node, len(r.Loaded), len(b.refs))
		}
	}
}

// TestLoadIntoNodes loads a bundle into a cluster made from it, looks that the kubelet's
// own view agrees, that a pod starts from an image which no node has unpacked yet, and
// that a second load sends nothing.
func TestLoadIntoNodes(t *testing.T) {
	lab := newBed(t)
	lab.load(t, Loader{Docker: lab.docker, Bundle: lab.bundle})
	for _, n := range lab.nodes {
		var out bytes.Buffer
		if err := n.CommandContext(t.Context(), "crictl", "images", "-o", "json").SetStdout(&out).SetStderr(io.Discard).Run(); err != nil {
			t.Fatal(err)
		}
		for _, ref := range lab.refs {
			if !strings.Contains(out.String(), `"`+ref+`"`) {
				t.Errorf("%s: the kubelet does not see %s", n, ref)
			}
		}
	}
	lab.runPod(t, "docker.io/mccutchen/go-httpbin:v2.26.0")
	again, err := LoadNodes(t.Context(), lab.docker, lab.bundle, lab.refs, lab.names)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range again.Nodes {
		if r.Sent != 0 || !slices.Equal(r.Held, lab.refs) {
			t.Errorf("the second load sent %s %d bytes", r.Node, r.Sent)
		}
	}
}

// runPod runs an image as a pod, never pulling it, until it is ready.
func (b bed) runPod(t *testing.T, image string) {
	t.Helper()
	kubectl := func(args ...string) {
		t.Helper()
		var out bytes.Buffer
		args = append([]string{"--kubeconfig=/etc/kubernetes/admin.conf"}, args...)
		if err := b.nodes[0].CommandContext(t.Context(), "kubectl", args...).SetStdout(&out).SetStderr(&out).Run(); err != nil {
			t.Fatalf("kubectl %v: %v: %s", args, err, &out)
		}
	}
	started := time.Now()
	kubectl("run", "loaded", "--image="+image, "--image-pull-policy=Never")
	kubectl("wait", "pod/loaded", "--for=condition=Ready", "--timeout=3m")
	t.Logf("a pod of %s was ready after %s", image, time.Since(started).Round(time.Millisecond))
	kubectl("delete", "pod/loaded", "--now")
}
