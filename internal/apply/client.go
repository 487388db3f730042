package apply

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sync/errgroup"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"

	"ambientlab/internal/problem"
)

// ManagedBy is the lab's field manager, and the value of LabelManagedBy.
const ManagedBy = "ambientlab"

// The labels of every object of a lab.
const (
	LabelManagedBy = "app.kubernetes.io/managed-by"
	LabelName      = "lab.opssec.in/name" // the lab
	LabelPart      = "lab.opssec.in/part" // the Set
)

// AnnotationAdopted marks an object that was in the cluster before the lab.
const AnnotationAdopted = "lab.opssec.in/adopted"

// Kind is what a caller knows of a kind that is not one of Kubernetes' own. Every field may be empty.
type Kind struct {
	// State says whether an object of the kind is ready. api reads what else it depends on.
	State func(ctx context.Context, api client.Reader, live *unstructured.Unstructured) (State, error)
	// Watch lists the kinds of the objects, in the same namespace, that State reads.
	Watch []schema.GroupVersionKind
	// Pods returns the label selector of the pods that the kind's controller makes for an object.
	Pods func(live *unstructured.Unstructured) string
}

// Options is what a Client has to know of the controllers that the lab installs.
type Options struct {
	// Kinds are the kinds that those controllers work on. Objects of kinds that neither this package nor Kinds knows
	// are ready once they exist.
	Kinds map[schema.GroupKind]Kind
	// Causes maps words of a warning about a pod that does not start to the problem that it shows.
	Causes map[string]problem.Kind
	// Generated says whether one of those controllers made an object by itself. It is asked about objects without an
	// owner.
	Generated func(client.Object) bool
}

// Client applies the Sets of one lab to one cluster. It is safe for concurrent use.
type Client struct {
	lab    string
	config *rest.Config
	api    client.WithWatch
	kube   kubernetes.Interface
	mapper meta.RESTMapper
	// resources lists the kinds that the cluster serves.
	resources func(context.Context) ([]*metav1.APIResourceList, error)
	options   Options
	listings  listings
}

// New returns a client for the lab of that name. The configuration is copied; the copy has no client-side rate limit,
// since the API server limits requests itself, and does not print the server's warnings between the lab's own output.
func New(cfg *rest.Config, lab string, options Options) (*Client, error) {
	if faults := validation.IsValidLabelValue(lab); lab == "" || len(faults) > 0 {
		return nil, fmt.Errorf("lab name %q cannot be a label's value: %s", lab, strings.Join(faults, "; "))
	}
	cfg = rest.CopyConfig(cfg)
	cfg.QPS, cfg.Burst, cfg.RateLimiter = -1, 0, nil
	cfg.WarningHandler = rest.NoWarnings{}
	cfg = rest.AddUserAgent(cfg, ManagedBy)
	httpClient, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", cfg.Host, err)
	}
	mapper, err := apiutil.NewDynamicRESTMapper(cfg, httpClient)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", cfg.Host, err)
	}
	api, err := client.NewWithWatch(cfg, client.Options{HTTPClient: httpClient, Mapper: mapper})
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", cfg.Host, err)
	}
	kube, err := kubernetes.NewForConfigAndClient(cfg, httpClient)
	if err != nil {
		return nil, fmt.Errorf("connecting to %s: %w", cfg.Host, err)
	}
	return &Client{
		lab: lab, config: cfg, api: api, kube: kube, mapper: mapper, options: options,
		resources: served(kube.Discovery()),
	}, nil
}

// Config returns a copy of the client's configuration, for port-forwards and the like.
func (c *Client) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Kube returns the typed client.
func (c *Client) Kube() kubernetes.Interface { return c.kube }

// Client returns controller-runtime's client.
func (c *Client) Client() client.Client { return c.api }

// parallel limits the requests that one call sends at a time.
const parallel = 8

// inParallel calls f for 0 to n-1, a few at a time, until one call fails.
func inParallel(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i := range n {
		group.Go(func() error { return f(ctx, i) })
	}
	return group.Wait()
}
