package apply

import (
	"context"
	"fmt"
	"slices"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// served lists the kinds that a cluster serves, each in its preferred version. Where the API server of an aggregated
// group is down, only the kinds of that group are missing.
func served(d discovery.DiscoveryInterface) func(context.Context) ([]*metav1.APIResourceList, error) {
	return func(context.Context) ([]*metav1.APIResourceList, error) {
		lists, err := discovery.ServerPreferredResources(d)
		if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
			return nil, fmt.Errorf("listing the kinds that the cluster serves: %w", err)
		}
		return lists, nil
	}
}

// systemKind says whether only Kubernetes itself makes objects of a kind. There are many of them, and none is the
// lab's.
func systemKind(gk schema.GroupKind) bool {
	switch gk.Kind {
	case "Event", "Lease", "Endpoints", "EndpointSlice", "Node", "ReplicaSet", "ControllerRevision", "CSINode",
		"VolumeAttachment", "CertificateSigningRequest", "FlowSchema", "PriorityLevelConfiguration", "ComponentStatus",
		"PodTemplate", "IPAddress", "ServiceCIDR", "ResourceSlice", "NodeMetrics", "PodMetrics", "StorageVersion",
		"CSIStorageCapacity":
		return true
	default:
		return false
	}
}

// owned lists the live objects with the lab's labels, of one part or, with part "", of all, in the order of their
// deletion.
func (c *Client) owned(ctx context.Context, part string) ([]*metav1.PartialObjectMetadata, error) {
	all, err := c.listings.get(ctx, c.listOwned)
	if err != nil {
		return nil, err
	}
	var found []*metav1.PartialObjectMetadata
	for _, obj := range all {
		if part == "" || obj.GetLabels()[LabelPart] == part {
			found = append(found, obj.DeepCopy())
		}
	}
	return found, nil
}

// listings lets callers share one listing. A caller gets one that was begun after its call.
type listings struct {
	mu      sync.Mutex
	current *listing // the last that has begun
	next    *listing // has not begun
}

type listing struct {
	done  chan struct{}
	found []*metav1.PartialObjectMetadata
	err   error
}

func (l *listings) get(
	ctx context.Context, list func(context.Context) ([]*metav1.PartialObjectMetadata, error),
) ([]*metav1.PartialObjectMetadata, error) {
	l.mu.Lock()
	shared := l.next
	if shared != nil {
		l.mu.Unlock()
		select {
		case <-shared.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
		if shared.err == nil {
			return shared.found, nil
		}
		return list(ctx) // the other caller may have been cancelled
	}
	mine, before := &listing{done: make(chan struct{})}, l.current
	l.next = mine
	l.mu.Unlock()
	defer close(mine.done)
	if before != nil {
		select {
		case <-before.done:
		case <-ctx.Done():
		}
	}
	l.mu.Lock()
	l.current, l.next = mine, nil // a call from here on gets another one
	l.mu.Unlock()
	mine.found, mine.err = list(ctx)
	return mine.found, mine.err
}

// listOwned lists the live objects with the lab's labels. It looks at every kind that the cluster serves, so that
// nothing has to be remembered of what a part consisted of before; it reads only metadata, a few kinds at a time.
func (c *Client) listOwned(ctx context.Context) ([]*metav1.PartialObjectMetadata, error) {
	lists, err := c.resources(ctx)
	if err != nil {
		return nil, err
	}
	labels := client.MatchingLabels{LabelManagedBy: ManagedBy, LabelName: c.lab}
	var mu sync.Mutex
	var found []*metav1.PartialObjectMetadata
	kinds := deletable(lists)
	err = inParallel(ctx, len(kinds), func(ctx context.Context, i int) error {
		list := &metav1.PartialObjectMetadataList{}
		list.SetGroupVersionKind(kinds[i].GroupVersion().WithKind(kinds[i].Kind + "List"))
		err := c.api.List(ctx, list, labels)
		switch {
		case err == nil:
		case apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err), apierrors.IsForbidden(err),
			kindUnknown(err):
			return nil // not served any more, or of a kind that this user cannot have made
		default:
			return fmt.Errorf("listing the lab's objects of kind %s: %w", kinds[i].Kind, err)
		}
		mu.Lock()
		defer mu.Unlock()
		for j := range list.Items {
			// An object with an owner was made by a controller, which may copy the labels of the lab's object to it:
			// istiod copies those of a Gateway. It is deleted with its owner.
			if obj := &list.Items[j]; len(obj.OwnerReferences) == 0 {
				obj.SetGroupVersionKind(kinds[i])
				found = append(found, obj)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b *metav1.PartialObjectMetadata) int { return deletionOrder(a, b) })
	return found, nil
}

// deletable returns the kinds whose objects can be listed and deleted.
func deletable(lists []*metav1.APIResourceList) []schema.GroupVersionKind {
	var kinds []schema.GroupVersionKind
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		for _, r := range list.APIResources {
			gvk := gv.WithKind(r.Kind)
			if slices.Contains(r.Verbs, "list") && slices.Contains(r.Verbs, "delete") && !systemKind(gvk.GroupKind()) {
				kinds = append(kinds, gvk)
			}
		}
	}
	return kinds
}
