package lab

import (
	"context"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"ambientlab/internal/dump"
	"ambientlab/internal/problem"
)

// killed wants the death of every component noticed with its log's last lines, and healed.
func (b *bench) killed() {
	for _, component := range []string{
		"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "podrunner", "metallb-controller",
		"istiod",
	} {
		b.killAndWait(component)
		status := b.do("status", b.Status)
		lines := strings.Split(strings.TrimSpace(read(b.t, filepath.Join(b.plane().Dir(), "logs", component+".log"))),
			"\n")
		says(b.t, "status", oneSpace(status), component+" does not run; its log ends with:",
			beginning(oneSpace(lines[len(lines)-1])))
		err := b.fails("waypoint", b.waypoint)
		if problem.ExitCode(err) != problem.ClusterStopped.Exit() {
			b.t.Errorf("a lesson without %s: %v", component, err)
		}
		files := b.dumped(component+" killed", err, component+" does not run", problem.ClusterStopped.ID)
		if files["nodes/"+component+".log"] == "" || files["host.txt"] == "" || files["status.txt"] == "" ||
			files["docker.txt"] == "" && !strings.Contains(files[dump.MissingName], "Docker: ") {
			b.t.Errorf("the dump without %s lacks its log, the host, Docker or the status: %v", component,
				fileNames(files))
		}
		b.do("install", b.Install)
	}
	b.do("verify", b.verify)
}

// killAndWait gives the kernel the moment that it needs to take a process away.
func (b *bench) killAndWait(component string) {
	b.t.Helper()
	b.kill(component)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(30 * time.Second); len(b.plane().Stopped()) == 0; <-tick.C {
		if time.Now().After(deadline) {
			b.t.Fatalf("%s still runs", component)
		}
	}
}

func oneSpace(text string) string { return strings.Join(strings.Fields(text), " ") }

// beginning is enough of a line to know it by: a table may cut a long one.
func beginning(line string) string { return line[:min(60, len(line))] }

// planned looks ahead at a lab that has drifted: every change is in the plan, and none is made, neither in the cluster
// nor in the lab's files.
func (b *bench) planned() {
	ctx := b.t.Context()
	if err := b.kube().AppsV1().DaemonSets("istio-system").Delete(ctx, "ztunnel", metav1.DeleteOptions{}); err != nil {
		b.t.Fatal(err)
	}
	virtualServices := b.dynamic().
		Resource(schema.GroupVersionResource{Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"})
	if err := virtualServices.Namespace("default").Delete(ctx, "appb-delay", metav1.DeleteOptions{}); err != nil {
		b.t.Fatal(err)
	}
	b.killAndWait("istiod")
	before := b.files()
	b.readOnly("a plan", func(ctx context.Context) error { return b.Plan(ctx, "") })
	says(b.t, "the plan", b.out.String(), "DaemonSet istio-system/ztunnel", "VirtualService default/appb-delay",
		"process istiod")
	after := b.files()
	for _, path := range slices.Sorted(maps.Keys(before)) {
		if before[path] != after[path] {
			b.t.Errorf("the plan changed %s", path)
		}
	}
	if len(before) != len(after) || len(before) < 20 {
		b.t.Errorf("%d files before, %d after", len(before), len(after))
	}
	b.do("install", b.Install)
	b.do("fault", b.fault)
}

// files are the contents of the lab's files and of the kubeconfig, but for what the processes themselves write.
func (b *bench) files() map[string]string {
	b.t.Helper()
	found := map[string]string{"kubeconfig": read(b.t, b.Settings.Kubeconfig)}
	err := filepath.WalkDir(b.plane().Dir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && slices.Contains([]string{"etcd", "logs", "tmp"}, d.Name()) {
			return filepath.SkipDir
		}
		if d.Type().IsRegular() {
			content, err := os.ReadFile(path)
			found[path] = string(content)
			return err
		}
		return nil
	})
	if err != nil {
		b.t.Fatal(err)
	}
	return found
}
