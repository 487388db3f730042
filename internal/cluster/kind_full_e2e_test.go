//go:build e2e && e2efull

package cluster_test

import (
	"context"
	"testing"
	"time"

	"github.com/moby/moby/client"

	"ambientlab/internal/cluster"
	"ambientlab/internal/docker"
	"ambientlab/internal/problem"
)

// TestKindHalfCreated leaves what a SIGKILL leaves and lets the next run finish.
func TestKindHalfCreated(t *testing.T) {
	b := newBed(t)
	before := b.remains()
	k := b.kind("f-e2e")
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	t.Cleanup(func() {
		if err := k.Delete(context.WithoutCancel(ctx)); err != nil {
			t.Error(err)
		}
		b.same(before)
	})
	if err := k.Create(ctx); err != nil {
		t.Fatal(err)
	}
	// One worker short and without the mark of completion, it is what a killed run leaves.
	info, err := k.Inspect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := docker.Exec(ctx, b.docker, info.Nodes[0].ContainerID, "rm", "/etc/ambientlab/complete"); err != nil {
		t.Fatal(err)
	}
	last := info.Nodes[len(info.Nodes)-1]
	if _, err := b.docker.ContainerRemove(
		ctx, last.ContainerID, client.ContainerRemoveOptions{Force: true, RemoveVolumes: true},
	); err != nil {
		t.Fatal(err)
	}
	if info, err = k.Inspect(ctx); err != nil || info.State != cluster.Partial {
		t.Fatalf("Inspect: %+v, %v; want half-created", info, err)
	}
	if err := k.Create(ctx); err != nil {
		t.Fatal(err)
	}
	if info, err = k.Inspect(ctx); err != nil || info.State != cluster.Ready || len(info.Nodes) != 3 {
		t.Errorf("Inspect: %+v, %v; want ready", info, err)
	}
}

// TestKindRefused: what the kubelet says must reach the user, not a time-out.
func TestKindRefused(t *testing.T) {
	b := newBed(t)
	before := b.remains()
	info, err := b.docker.Info(context.Background(), client.InfoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if info.Info.CgroupVersion != "1" {
		t.Logf("this engine runs cgroup v%s, so the kubelet has nothing to refuse", info.Info.CgroupVersion)
		return
	}
	k := cluster.NewKind(cluster.KindOptions{
		Name: "f-e2e", NodeImage: "kindest/node:v1.36.3", Kubeconfig: b.kubeconfig,
		Docker: b.docker, Endpoint: b.endpoint, LockDir: b.TempDir(),
	})
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Minute)
	defer cancel()
	err = k.Create(ctx)
	t.Log(err)
	if !problem.Is(err, problem.HostUnsupported) {
		t.Errorf("Create on cgroup v1 without the patch: %v", err)
	}
	b.same(before)
}
