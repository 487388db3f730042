//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"

	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
	"ambientlab/internal/probe"
	"ambientlab/internal/probe/report"
)

var deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}

// verify runs sm:verify and reads the report that it writes.
func (l *lab) verify(t *testing.T) (probe.Report, result) {
	t.Helper()
	folder := t.TempDir()
	ended := l.try(t, "sm:verify", "-out="+folder)
	content, err := os.ReadFile(filepath.Join(folder, report.JSONFile))
	if err != nil {
		t.Fatal(err)
	}
	var found probe.Report
	if err := json.Unmarshal(content, &found); err != nil {
		t.Fatal(err)
	}
	return found, ended
}

// proofs is what sm:verify measures with, without the command around it.
func (l *lab) proofs(t *testing.T, lessons probe.Lessons, only ...string) probe.Env {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", l.kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	forwarder, err := mesh.NewForwarder(config)
	if err != nil {
		t.Fatal(err)
	}
	m, err := mesh.New(config)
	if err != nil {
		t.Fatal(err)
	}
	world, err := probe.NewKubernetes(config, forwarder, m, mesh.Target{
		Service:  mesh.Service{Namespace: "default", Name: names.AppB, Port: names.AppPort},
		Waypoint: names.Waypoint, Gateway: names.Gateway,
	})
	if err != nil {
		t.Fatal(err)
	}
	return probe.Env{
		Lab: l.name, Namespace: "default", Lessons: lessons, Claims: lesson.Claims(), World: world,
		Only: only, Progress: t.Logf, Installed: probe.Installed{Addons: strings.Split(os.Getenv("SM_ADDONS"), ",")},
	}
}

// patch merges a JSON patch into an object.
func (l *lab) patch(t *testing.T, kind schema.GroupVersionResource, name, merge string) {
	t.Helper()
	_, objects := l.kube(t)
	if _, err := objects.Resource(kind).Namespace("default").
		Patch(t.Context(), name, types.MergePatchType, []byte(merge), metav1.PatchOptions{}); err != nil {
		t.Fatalf("patching %s %s: %v", kind.Resource, name, err)
	}
}

// until waits for something to become so in the cluster.
func until(t *testing.T, what string, so func() (bool, string)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	for tick := time.NewTicker(200 * time.Millisecond); ; {
		is, state := so()
		if is {
			tick.Stop()
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("waiting for %s: last seen: %s", what, state)
		}
	}
}

// rolledOut waits until all pods of a Deployment are of its newest revision and the old ones are gone.
func (l *lab) rolledOut(t *testing.T, name string, replicas int32) {
	t.Helper()
	kube, _ := l.kube(t)
	until(t, "deploy/"+name, func() (bool, string) {
		d, err := kube.AppsV1().Deployments("default").Get(t.Context(), name, metav1.GetOptions{})
		if err != nil {
			return false, err.Error()
		}
		pods, err := kube.CoreV1().Pods("default").
			List(t.Context(), metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(d.Spec.Selector)})
		if err != nil {
			return false, err.Error()
		}
		s := d.Status
		state := fmt.Sprintf("%d pods, status %+v", len(pods.Items), s)
		return s.ObservedGeneration >= d.Generation && s.UpdatedReplicas == replicas && s.ReadyReplicas == replicas &&
			len(pods.Items) == int(replicas), state
	})
}

// describe is a result in a few lines.
func describe(r probe.Result) string {
	var out strings.Builder
	fmt.Fprintf(&out, "%s: %s\n", r.ID, r.Verdict)
	for _, c := range r.Checks {
		fmt.Fprintf(&out, "  %s %s: %s\n", c.Verdict, c.Name, c.Text)
	}
	for _, c := range r.Causes {
		fmt.Fprintf(&out, "  likely cause: %s\n", c)
	}
	return out.String()
}
