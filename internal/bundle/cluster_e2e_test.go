//go:build e2e

package bundle

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"sigs.k8s.io/kind/pkg/cluster"
	"sigs.k8s.io/kind/pkg/cluster/nodes"
)

// e2eCluster is the name of the cluster that these tests make and delete.
const e2eCluster = "bundle-e2e"

// testCluster is three nodes made from a bundle.
type testCluster struct {
	bundle *Bundle
	docker *client.Client
	// refs are the images for nodes; names are the nodes' containers.
	refs, names []string
	// own are the names of the images that nodes come with.
	own   []string
	nodes []nodes.Node
	// nodeImage is what Docker knows the bundle's node image by.
	nodeImage  string
	provider   *cluster.Provider
	kubeconfig string
}

// openTestCluster opens the bundle that SM_BUNDLE names, loads its node image into Docker, and removes the nodes of an
// earlier run, and those of this run at its end.
func openTestCluster(tb testing.TB) *testCluster {
	tb.Helper()
	path := os.Getenv("SM_BUNDLE")
	if path == "" {
		tb.Fatal("SM_BUNDLE must name a bundle: `mage sm:bundle -from=source -to=DIR` makes one")
	}
	docker, err := client.New(client.FromEnv)
	if err != nil {
		tb.Fatal(err)
	}
	b := &testCluster{
		bundle: openBundle(tb, path), docker: docker, kubeconfig: filepath.Join(tb.TempDir(), "kubeconfig"),
		provider: cluster.NewProvider(cluster.ProviderWithDocker()),
	}
	for _, e := range b.bundle.Images() {
		if !strings.HasPrefix(e.Ref, "docker.io/kindest/node:") {
			b.refs = append(b.refs, e.Ref)
			continue
		}
		loaded, err := LoadNodeImage(tb.Context(), docker, b.bundle, e.Ref)
		if err != nil {
			tb.Fatal(err)
		}
		b.nodeImage = loaded.Ref
	}
	remove := func() {
		if err := b.provider.Delete(e2eCluster, b.kubeconfig); err != nil {
			tb.Error(err)
		}
	}
	remove()
	tb.Cleanup(remove)
	return b
}

// newCluster makes a kind cluster.
func newCluster(tb testing.TB) *testCluster {
	tb.Helper()
	b := openTestCluster(tb)
	if err := b.provider.Create(e2eCluster, cluster.CreateWithRawConfig(kindConfig(tb, b.docker)),
		cluster.CreateWithNodeImage(b.nodeImage), cluster.CreateWithKubeconfigPath(b.kubeconfig),
		cluster.CreateWithWaitForReady(3*time.Minute)); err != nil {
		tb.Fatal(err)
	}
	b.list(tb)
	return b
}

// newContainerds makes three nodes as kind does, but runs nothing in them except their containerd, so that a benchmark
// does not measure Kubernetes.
func newContainerds(tb testing.TB) *testCluster {
	tb.Helper()
	b := openTestCluster(tb)
	for i := range 3 {
		role := "worker"
		if i == 0 {
			role = "control-plane"
		}
		created, err := b.docker.ContainerCreate(tb.Context(), client.ContainerCreateOptions{
			Name: fmt.Sprintf("%s-%d", e2eCluster, i),
			Config: &container.Config{
				Image: b.nodeImage, Entrypoint: []string{"containerd"}, Volumes: map[string]struct{}{"/var": {}},
				Labels: map[string]string{"io.x-k8s.kind.cluster": e2eCluster, "io.x-k8s.kind.role": role},
			},
			HostConfig: &container.HostConfig{Privileged: true, Tmpfs: map[string]string{"/run": "", "/tmp": ""}},
		})
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := b.docker.ContainerStart(tb.Context(), created.ID, client.ContainerStartOptions{}); err != nil {
			tb.Fatal(err)
		}
	}
	b.list(tb)
	for _, n := range b.nodes {
		b.await(tb, n)
	}
	b.own = b.images(tb, b.nodes[0])
	return b
}

// list finds the nodes as kind does.
func (b *testCluster) list(tb testing.TB) {
	tb.Helper()
	var err error
	if b.nodes, err = b.provider.ListInternalNodes(e2eCluster); err != nil {
		tb.Fatal(err)
	}
	for _, n := range b.nodes {
		b.names = append(b.names, n.String())
	}
}

// await waits until a node's containerd answers.
func (b *testCluster) await(tb testing.TB, n nodes.Node) {
	tb.Helper()
	ctx, cancel := context.WithTimeout(tb.Context(), time.Minute)
	defer cancel()
	for n.CommandContext(ctx, "ctr", "version").Run() != nil {
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			tb.Fatalf("containerd in %s does not answer: %v", n, err)
		}
	}
}

func kindConfig(tb testing.TB, docker *client.Client) []byte {
	tb.Helper()
	info, err := docker.Info(tb.Context(), client.InfoOptions{})
	if err != nil {
		tb.Fatal(err)
	}
	config := "kind: Cluster\napiVersion: kind.x-k8s.io/v1alpha4\nnodes: [{role: control-plane}, {role: worker}, " +
		"{role: worker}]\n"
	if info.Info.CgroupVersion == "1" { // which Kubernetes refuses by itself since 1.35
		config += "kubeadmConfigPatches: [\"kind: KubeletConfiguration\\nfailCgroupV1: false\\n\"]\n"
	}
	return []byte(config)
}
