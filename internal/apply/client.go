package apply

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/apiutil"
)

// ManagedBy is the lab's field manager, and the value of LabelManagedBy.
const ManagedBy = "ambientlab"

// The labels that every object of a lab bears.
const (
	LabelManagedBy = "app.kubernetes.io/managed-by"
	LabelName      = "lab.opssec.in/name" // the lab
	LabelPart      = "lab.opssec.in/part" // the Set
)

// AnnotationAdopted marks an object that was in the cluster before the lab.
const AnnotationAdopted = "lab.opssec.in/adopted"

// Set is the objects of one part of a lab. An object belongs to one part only.
type Set struct {
	// Name is the part's, a valid label value.
	Name string
	// Objects are what the part consists of, in any order. They are not changed.
	Objects []*unstructured.Unstructured
	// Namespace is for namespaced objects that name none; "default" when empty.
	Namespace string
	// Force takes fields over from other field managers instead of reporting the
	// conflict. It is for clusters that the lab made itself.
	Force bool
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
}

// New makes a client for the lab of that name. The configuration is copied; the copy
// has no client-side rate limit, because the API server has a fairer one, and does not
// print the server's warnings over the run's own output.
func New(cfg *rest.Config, lab string) (*Client, error) {
	if why := validation.IsValidLabelValue(lab); lab == "" || len(why) > 0 {
		return nil, fmt.Errorf("lab name %q cannot be a label's value: %s", lab, strings.Join(why, "; "))
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
	return &Client{lab: lab, config: cfg, api: api, kube: kube, mapper: mapper, resources: served(kube.Discovery())}, nil
}

// Config gives a copy of the client's configuration, for port-forwards and the like.
func (c *Client) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Kube gives the typed client.
func (c *Client) Kube() kubernetes.Interface { return c.kube }

// Client gives controller-runtime's client.
func (c *Client) Client() client.Client { return c.api }

// Lab gives the lab's name.
func (c *Client) Lab() string { return c.lab }
