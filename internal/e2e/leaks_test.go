//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/moby/moby/client"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/tools/clientcmd"

	"ambientlab/internal/node"
)

// inventory is what a lab could leave behind on its host.
type inventory struct{ containers, volumes, networks, contexts int }

func (i inventory) String() string {
	return fmt.Sprintf("%d containers, %d volumes, %d networks, %d kubeconfig contexts", i.containers, i.volumes,
		i.networks, i.contexts)
}

// leaks counts containers, volumes, networks and kubeconfig entries. kind's own network is kept by kind on purpose and
// is not counted, nor is what belongs to other kind clusters, which may come and go meanwhile.
func (l *lab) leaks(t *testing.T) inventory {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	containers, err := l.docker.ContainerList(ctx, client.ContainerListOptions{All: true})
	if err != nil {
		t.Fatal(err)
	}
	volumes, err := l.docker.VolumeList(ctx, client.VolumeListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	networks, err := l.docker.NetworkList(ctx, client.NetworkListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var found inventory
	others := map[string]bool{}
	for _, c := range containers.Items {
		if cluster := c.Labels[node.ClusterLabel]; cluster == "" || cluster == l.name {
			found.containers++
			continue
		}
		for _, mount := range c.Mounts {
			others[mount.Name] = true
		}
	}
	for _, volume := range volumes.Items {
		if !others[volume.Name] {
			found.volumes++
		}
	}
	for _, network := range networks.Items {
		if network.Name != "kind" {
			found.networks++
		}
	}
	if config, err := clientcmd.LoadFromFile(l.kubeconfig); err == nil {
		found.contexts = len(config.Contexts)
	} else if !os.IsNotExist(err) {
		t.Fatal(err)
	}
	return found
}

// resourceVersions maps every object with the lab's label to its resourceVersion.
func (l *lab) resourceVersions(t *testing.T) map[string]string {
	t.Helper()
	kube, objects := l.kube(t)
	lists, err := discovery.ServerPreferredResources(kube.Discovery())
	if err != nil {
		t.Fatal(err)
	}
	versions := map[string]string{}
	for _, list := range lists {
		group, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			t.Fatal(err)
		}
		for _, resource := range list.APIResources {
			if !slices.Contains(resource.Verbs, "list") || resource.Name == "leases" {
				continue
			}
			found, err := objects.Resource(group.WithResource(resource.Name)).
				List(t.Context(), metav1.ListOptions{LabelSelector: "lab.opssec.in/name=" + l.name})
			if err != nil {
				t.Fatal(err)
			}
			for _, object := range found.Items {
				if object.GetOwnerReferences() != nil {
					continue // made by a controller, which may touch it at any time
				}
				versions[strings.Join([]string{object.GetKind(), object.GetNamespace(), object.GetName()},
					"/")] = object.GetResourceVersion() + "@" + fmt.Sprint(object.GetGeneration())
			}
		}
	}
	if len(versions) == 0 {
		t.Fatal("no object has the lab's label")
	}
	return versions
}

func sameVersions(t *testing.T, before, after map[string]string) bool {
	t.Helper()
	for name := range maps.Keys(before) {
		if before[name] != after[name] {
			t.Logf("%s was %s and is %q", name, before[name], after[name])
		}
	}
	return maps.Equal(before, after)
}

// dump prints the pods, so that a failure in CI can be read without the machine. A cluster that is gone has none.
func (l *lab) dump(t *testing.T) {
	t.Helper()
	if l.leaks(t).contexts == 0 {
		return
	}
	kube, _ := l.kube(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	pods, err := kube.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Logf("no pods to show: %v", err)
		return
	}
	for _, pod := range pods.Items {
		t.Logf("pod %s/%s on %s: %s", pod.Namespace, pod.Name, pod.Spec.NodeName, pod.Status.Phase)
		for _, status := range pod.Status.ContainerStatuses {
			if !status.Ready {
				t.Logf("  container %s: %+v", status.Name, status.State)
			}
		}
	}
}
