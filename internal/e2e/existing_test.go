//go:build e2e && e2efull

package e2e

import (
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/client"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	kind "sigs.k8s.io/kind/pkg/cluster"

	"ambientlab/internal/bundle"
	"ambientlab/internal/node"
	"ambientlab/specs"
)

// TestExistingCluster takes the lab to a cluster that the lab did not make, through every lesson, and away again. The
// cluster must then hold what it held before: nothing more, and nothing less.
func TestExistingCluster(t *testing.T) {
	const theirs = "somebodys"
	l := newLab(t, "guest", "INSTALL_KIND=n", "SM_ADDONS=none")
	provider := kind.NewProvider(kind.ProviderWithDocker())
	t.Cleanup(func() {
		if err := provider.Delete(theirs, l.kubeconfig); err != nil {
			t.Error(err)
		}
	})
	if err := provider.Create(theirs, kind.CreateWithNodeImage(l.nodeImage(t)),
		kind.CreateWithRawConfig(l.kindConfig(t)), kind.CreateWithKubeconfigPath(l.kubeconfig)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			l.dump(t)
		}
	})
	kube, _ := l.kube(t)
	if _, err := kube.CoreV1().ConfigMaps("default").
		Create(t.Context(), &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "theirs"}},
			metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	before := l.everything(t)

	install := l.mage(t, "sm:install")
	if !strings.Contains(install.stderr, "kind-"+theirs) {
		t.Error("the install does not name the context that it works on")
	}
	if again := l.mage(t, "sm:install"); !strings.Contains(again.stderr, "no changes") {
		t.Error("a second install does not say `no changes`")
	}
	for _, target := range []string{"sm:apps", "sm:waypoint", "sm:fault"} {
		l.mage(t, target)
	}
	l.mage(t, "sm:authz", "-strict")
	verify := l.verified(t)
	t.Logf("sm:verify:\n%s", verify.stdout)
	if !strings.Contains(verify.stdout, " proven") || strings.Contains(verify.stdout, "refuted") {
		t.Error("not every claim is proven")
	}
	status := l.mage(t, "sm:status")
	t.Logf("sm:status:\n%s", status.stdout)

	// Deleting needs no more of the environment than which cluster it is.
	l.mage(t, "sm:delete")
	after := l.everything(t)
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if _, was := before[name]; !was {
			t.Errorf("left behind: %s", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(before)) {
		if labels, is := after[name]; !is {
			t.Errorf("gone: %s", name)
		} else if labels != before[name] {
			t.Errorf("%s had the labels %s, and has %s", name, before[name], labels)
		}
	}
	containers, err := l.docker.ContainerList(t.Context(),
		client.ContainerListOptions{Filters: client.Filters{}.Add("label", node.ClusterLabel+"="+theirs)})
	if err != nil || len(containers.Items) != 3 {
		t.Errorf("%d node containers are left, %v", len(containers.Items), err)
	}
	if result := l.try(t, "sm:apps"); result.code == 0 {
		t.Error("a lesson could be turned on in a cluster that has no lab any more")
	}
}

// nodeImage loads the bundle's node image into Docker and gives its name.
func (l *lab) nodeImage(t *testing.T) string {
	t.Helper()
	opened, err := bundle.Open(os.Getenv("SM_BUNDLE"))
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	for _, image := range opened.Images() {
		if strings.Contains(image.Ref, "kindest/node:") {
			if _, err := bundle.LoadNodeImage(t.Context(), l.docker, opened, image.Ref); err != nil {
				t.Fatal(err)
			}
			return strings.TrimPrefix(image.Ref, "docker.io/")
		}
	}
	t.Fatal("the bundle has no node image")
	return ""
}

func (l *lab) kindConfig(t *testing.T) []byte {
	t.Helper()
	info, err := l.docker.Info(t.Context(), client.InfoOptions{})
	if err != nil {
		t.Fatal(err)
	}
	config, err := specs.Render(
		"kind.yaml",
		map[string]any{
			"Workers":         2,
			"WorkerList":      make([]struct{}, 2),
			"CgroupV1":        info.Info.CgroupVersion == "1",
			"GatewayNodePort": node.GatewayPort,
		},
	)
	if err != nil {
		t.Fatal(err)
	}
	return config
}

// everything lists the cluster's objects with their labels, but for what comes and goes by itself: pods and what is
// made for them, events, leases.
func (l *lab) everything(t *testing.T) map[string]string {
	t.Helper()
	kube, objects := l.kube(t)
	lists, err := discovery.ServerPreferredResources(kube.Discovery())
	if err != nil {
		t.Fatal(err)
	}
	passing := []string{
		"leases", "events", "pods", "podmetrics", "endpoints", "endpointslices", "replicasets",
		"controllerrevisions", "ipaddresses", "csinodes",
	}
	found := map[string]string{}
	for _, list := range lists {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, resource := range list.APIResources {
			if !slices.Contains(resource.Verbs, "list") || slices.Contains(passing, resource.Name) {
				continue
			}
			items, err := objects.Resource(group.WithResource(resource.Name)).List(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			for _, item := range items.Items {
				found[strings.Join([]string{item.GetKind(), group.Group, item.GetNamespace(), item.GetName()},
					"/")] = metav1.FormatLabelSelector(&metav1.LabelSelector{MatchLabels: item.GetLabels()})
			}
		}
	}
	return found
}
