package lab

import (
	"context"
	"encoding/json"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"ambientlab/internal/lesson/names"
)

// overlooked turns the waypoint on where istiod does not see its pods, as turning the lesson off and on again within
// seconds does on a real cluster now and then: istiod's index is made to hold the Service's name already, and the pods
// become ready only after the Service's own changes are through.
func (b *bench) overlooked() {
	b.lateEndpoints(names.Waypoint)
	b.cordon(true)
	b.talk.reset()
	done := make(chan error, 1)
	go func() { done <- b.waypoint(b.t.Context()) }()
	// By then istiod knows the Service, and has written what it thinks of it.
	b.eventually("istiod knows the waypoint's Service, which has no pods yet", func() bool {
		return strings.Contains(b.gatewayMessage(names.Waypoint), "no instances found")
	})
	b.cordon(false)
	if err := <-done; err != nil {
		b.t.Fatalf("waypoint: %v", err)
	}
	says(b.t, "the target", b.talk.String(), "but pods of Service "+names.Waypoint+" are ready",
		"notified by a label on Service "+names.Waypoint)
}

// lateEndpoints gives istiod endpoints of a Service that does not exist, and takes them away.
func (b *bench) lateEndpoints(service string) {
	ctx, kube, namespace := b.t.Context(), b.kube(), "default"
	check := func(err error) {
		b.t.Helper()
		if err != nil {
			b.t.Fatal(err)
		}
	}
	// istiod compares the identities of endpoints, so the pod must have the waypoint's.
	accounts, pods, slices := kube.CoreV1().ServiceAccounts(namespace), kube.CoreV1().Pods(namespace),
		kube.DiscoveryV1().EndpointSlices(namespace)
	_, err := accounts.Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: service}},
		metav1.CreateOptions{})
	check(err)
	_, err = pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "late"},
		Spec: corev1.PodSpec{
			ServiceAccountName: service,
			Containers:         []corev1.Container{{Name: "late", Image: "late"}},
		},
	}, metav1.CreateOptions{})
	check(err)
	var ip string
	b.eventually("the pod has an address", func() bool {
		pod, err := pods.Get(ctx, "late", metav1.GetOptions{})
		check(err)
		ip = pod.Status.PodIP
		return ip != ""
	})
	log := filepath.Join(b.plane().Dir(), "logs", "istiod.log")
	taken, dropped := "Full push, new service "+namespace+"/"+service+".",
		"service "+service+"."+namespace+".svc.cluster.local at shard Kubernetes/Kubernetes has no endpoints"
	before := read(b.t, log)
	_, err = slices.Create(ctx, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "late", Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: ptr.To("mesh"), Port: ptr.To[int32](15008)}},
		Endpoints: []discoveryv1.Endpoint{{
			Addresses: []string{ip},
			TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: "late"},
		}},
	}, metav1.CreateOptions{})
	check(err)
	b.eventually("istiod takes the endpoints in", func() bool {
		return strings.Count(read(b.t, log), taken) > strings.Count(before, taken)
	})
	check(slices.Delete(ctx, "late", metav1.DeleteOptions{}))
	b.eventually("istiod drops the endpoints", func() bool {
		return strings.Count(read(b.t, log), dropped) > strings.Count(before, dropped)
	})
	check(pods.Delete(ctx, "late", metav1.DeleteOptions{GracePeriodSeconds: ptr.To[int64](0)}))
	check(accounts.Delete(ctx, service, metav1.DeleteOptions{}))
}

// cordon keeps new pods off every node, or lets them on again.
func (b *bench) cordon(on bool) {
	b.t.Helper()
	nodes, err := b.kube().CoreV1().Nodes().List(b.t.Context(), metav1.ListOptions{})
	if err != nil {
		b.t.Fatal(err)
	}
	patch, err := json.Marshal(map[string]any{"spec": map[string]any{"unschedulable": on}})
	if err != nil {
		b.t.Fatal(err)
	}
	for _, node := range nodes.Items {
		if _, err := b.kube().CoreV1().Nodes().
			Patch(b.t.Context(), node.Name, types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
			b.t.Fatal(err)
		}
	}
}

// gatewayMessage is what istiod says of a Gateway.
func (b *bench) gatewayMessage(name string) string {
	gateway, err := b.dynamic().
		Resource(schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"}).
		Namespace("default").Get(b.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return ""
	}
	raw, err := json.Marshal(gateway.Object["status"])
	if err != nil {
		b.t.Fatal(err)
	}
	return string(raw)
}

// eventually waits for something to become so within a minute.
func (b *bench) eventually(what string, so func() bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.t.Fatalf("waited without success for: %s", what)
		}
	}
}
