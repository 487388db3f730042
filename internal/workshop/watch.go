package workshop

import (
	"context"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/probe/traffic"
)

// watched are the kinds whose objects decide what becomes of a request.
func watched() []schema.GroupVersionResource {
	return []schema.GroupVersionResource{
		{Version: "v1", Resource: "services"},
		{Version: "v1", Resource: "configmaps"},
		{Version: "v1", Resource: "pods"},
		{Group: "apps", Version: "v1", Resource: "deployments"},
		{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"},
		{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"},
		{Group: "networking.istio.io", Version: "v1", Resource: "virtualservices"},
		{Group: "security.istio.io", Version: "v1", Resource: "authorizationpolicies"},
		{Group: "security.istio.io", Version: "v1", Resource: "peerauthentications"},
	}
}

// Watch calls changed with kind and name of every object of the applications' namespace that matters to a claim, and of
// every ztunnel, when it has changed, until ctx ends.
func Watch(ctx context.Context, config *rest.Config, namespace string, changed func(object string)) error {
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("making a client that watches the lab's objects: %w", err)
	}
	handler := cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(object any, isInInitialList bool) {
			if !isInInitialList {
				announce(object, changed)
			}
		},
		UpdateFunc: func(_, after any) { announce(after, changed) },
		DeleteFunc: func(object any) {
			if gone, ok := object.(cache.DeletedFinalStateUnknown); ok {
				object = gone.Obj
			}
			announce(object, changed)
		},
	}
	informers := []cache.SharedInformer{
		informer(client.Resource(schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "daemonsets"}).
			Namespace(names.Istio)),
	}
	for _, kind := range watched() {
		informers = append(informers, informer(client.Resource(kind).Namespace(namespace)))
	}
	var running sync.WaitGroup
	defer running.Wait()
	for _, i := range informers {
		if _, err := i.AddEventHandler(handler); err != nil {
			return fmt.Errorf("watching the lab's objects: %w", err)
		}
	}
	for _, i := range informers {
		running.Go(func() { i.RunWithContext(ctx) })
	}
	return nil
}

// informer watches the objects of one kind in one namespace. client-go's dynamicinformer does the same, but imports the
// informers of every built-in kind, which the lab would then compile as well.
func informer(objects dynamic.ResourceInterface) cache.SharedInformer {
	return cache.NewSharedInformer(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			return objects.List(ctx, options)
		},
		WatchFuncWithContext: objects.Watch,
	}, &unstructured.Unstructured{}, 0)
}

// announce names an object that changed, but for the callers that a check starts and removes.
func announce(object any, changed func(string)) {
	if live, ok := object.(*unstructured.Unstructured); ok && !ofACheck(live) {
		changed(live.GetKind() + " " + live.GetName())
	}
}

func ofACheck(object *unstructured.Unstructured) bool {
	_, is := object.GetLabels()[traffic.CallerLabel]
	return is
}
