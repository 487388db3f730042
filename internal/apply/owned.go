package apply

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/discovery"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// parallel bounds the requests that one call has under way.
const parallel = 8

// served lists the kinds that a cluster serves, each in its preferred version. A group
// whose own API server is down hides its kinds and no others.
func served(d discovery.DiscoveryInterface) func(context.Context) ([]*metav1.APIResourceList, error) {
	return func(context.Context) ([]*metav1.APIResourceList, error) {
		lists, err := discovery.ServerPreferredResources(d)
		if err != nil && !discovery.IsGroupDiscoveryFailedError(err) {
			return nil, fmt.Errorf("listing the kinds that the cluster serves: %w", err)
		}
		return lists, nil
	}
}

// neverOurs are kinds that only the cluster itself makes; they are the most numerous
// objects, and looking among them for the lab's would be most of the work.
func neverOurs(gk schema.GroupKind) bool {
	switch gk.Kind {
	case "Event", "Lease", "Endpoints", "EndpointSlice", "Node", "ReplicaSet", "ControllerRevision", "CSINode",
		"VolumeAttachment", "CertificateSigningRequest", "FlowSchema", "PriorityLevelConfiguration", "ComponentStatus",
		"PodTemplate", "IPAddress", "ServiceCIDR", "ResourceSlice", "NodeMetrics", "PodMetrics", "StorageVersion", "CSIStorageCapacity":
		return true
	default:
		return false
	}
}

// owned lists the live objects that bear the lab's labels, of one part or, with part
// "", of all, in the order of their deletion. Every kind that the cluster serves is
// looked at, so that nothing needs to be remembered of what earlier versions of a part
// consisted of; only metadata is read, a few kinds at a time.
func (c *Client) owned(ctx context.Context, part string) ([]*metav1.PartialObjectMetadata, error) {
	lists, err := c.resources(ctx)
	if err != nil {
		return nil, err
	}
	labels := client.MatchingLabels{LabelManagedBy: ManagedBy, LabelName: c.lab}
	if part != "" {
		labels[LabelPart] = part
	}
	var mu sync.Mutex
	var found []*metav1.PartialObjectMetadata
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for _, gvk := range deletable(lists) {
		group.Go(func() error {
			list := &metav1.PartialObjectMetadataList{}
			list.SetGroupVersionKind(gvk.GroupVersion().WithKind(gvk.Kind + "List"))
			err := c.api.List(ctx, list, labels)
			switch {
			case err == nil:
			case apierrors.IsNotFound(err), apierrors.IsMethodNotSupported(err), apierrors.IsForbidden(err), kindUnknown(err):
				return nil // not there any more, or nothing that this user could have made
			default:
				return fmt.Errorf("listing the lab's objects of kind %s: %w", gvk.Kind, err)
			}
			mu.Lock()
			defer mu.Unlock()
			for i := range list.Items {
				if len(list.Items[i].OwnerReferences) > 0 {
					// Made by a controller for an object of the lab's, whose labels
					// istiod copies from a Gateway to all it makes for it. It goes
					// with its owner.
					continue
				}
				list.Items[i].SetGroupVersionKind(gvk)
				found = append(found, &list.Items[i])
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	slices.SortFunc(found, func(a, b *metav1.PartialObjectMetadata) int { return deletionOrder(a, b) })
	return found, nil
}

// deletable gives the kinds whose objects can be listed and deleted.
func deletable(lists []*metav1.APIResourceList) []schema.GroupVersionKind {
	var kinds []schema.GroupVersionKind
	for _, list := range lists {
		gv, err := schema.ParseGroupVersion(list.GroupVersion)
		if err != nil {
			continue
		}
		for _, r := range list.APIResources {
			gvk := gv.WithKind(r.Kind)
			if slices.Contains(r.Verbs, "list") && slices.Contains(r.Verbs, "delete") && !neverOurs(gvk.GroupKind()) {
				kinds = append(kinds, gvk)
			}
		}
	}
	return kinds
}
