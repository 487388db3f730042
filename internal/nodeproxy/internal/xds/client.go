// Package xds receives workloads, services and policies from istiod by delta xDS.
package xds

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"istio.io/istio/pkg/workloadapi"
	"istio.io/istio/pkg/workloadapi/security"

	"ambientlab/nodeproxy/internal/policy"
	"ambientlab/nodeproxy/internal/workload"
)

const (
	typeAddress       = "type.googleapis.com/istio.workload.Address"
	typeAuthorization = "type.googleapis.com/istio.security.Authorization"

	retryMin = 50 * time.Millisecond
	retryMax = 5 * time.Second
	// stable is how long a stream has to last until the pause before the next one is the shortest again.
	stable = 10 * time.Second
)

// Client updates the stores with what the control plane sends.
type Client struct {
	conn      grpc.ClientConnInterface
	node      *core.Node
	workloads *workload.Store
	policies  *policy.Store
	log       *slog.Logger
	onStream  func(up bool)

	// versions are the accepted versions, by type and name. A new stream sends them, so that istiod answers with
	// changes only.
	versions map[string]map[string]string
	synced   map[string]bool
	ready    chan struct{}
}

// New returns a client. conn must send the proxy's credentials. onStream, if not nil, is called when a stream starts
// and when it ends.
func New(
	conn grpc.ClientConnInterface, node *core.Node, workloads *workload.Store, policies *policy.Store, log *slog.Logger,
	onStream func(bool),
) *Client {
	return &Client{
		conn: conn, node: node, workloads: workloads, policies: policies, log: log, onStream: onStream,
		versions: map[string]map[string]string{typeAddress: {}, typeAuthorization: {}},
		synced:   map[string]bool{},
		ready:    make(chan struct{}),
	}
}

// Ready is closed once every type of resource has been received.
func (c *Client) Ready() <-chan struct{} { return c.ready }

// Run keeps a stream to the control plane until ctx ends, and starts another one when it breaks.
func (c *Client) Run(ctx context.Context) {
	pause := retryMin
	for ctx.Err() == nil {
		began := time.Now()
		err := c.stream(ctx)
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > stable {
			pause = retryMin
		}
		c.log.Warn("discovery stream ended, will reconnect", "error", err, "in", pause.String())
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
		pause = min(2*pause, retryMax)
	}
}

func (c *Client) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ads := discovery.NewAggregatedDiscoveryServiceClient(c.conn)
	s, err := ads.DeltaAggregatedResources(ctx, grpc.MaxCallRecvMsgSize(200<<20))
	if err != nil {
		return fmt.Errorf("opening the discovery stream: %w", err)
	}
	for _, t := range []string{typeAddress, typeAuthorization} {
		err := s.Send(&discovery.DeltaDiscoveryRequest{
			Node: c.node, TypeUrl: t,
			InitialResourceVersions: c.versions[t],
		})
		if err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("requesting %s: %w", t, err)
		}
	}
	up := false
	defer func() {
		if up && c.onStream != nil {
			c.onStream(false)
		}
	}()
	for {
		resp, err := s.Recv()
		if err != nil {
			return fmt.Errorf("receiving discovery responses: %w", err)
		}
		if !up {
			up = true
			c.log.Info("discovery stream established")
			if c.onStream != nil {
				c.onStream(true)
			}
		}
		ack := &discovery.DeltaDiscoveryRequest{TypeUrl: resp.GetTypeUrl(), ResponseNonce: resp.GetNonce()}
		if err := c.apply(resp); err != nil {
			c.log.Error("parts of a discovery response refused", "type", resp.GetTypeUrl(), "error", err)
			ack.ErrorDetail = &status.Status{Code: int32(codes.InvalidArgument), Message: err.Error()}
		}
		c.note(resp.GetTypeUrl())
		if err := s.Send(ack); err != nil && !errors.Is(err, io.EOF) {
			return fmt.Errorf("acknowledging %s: %w", resp.GetTypeUrl(), err)
		}
	}
}

// note records that a type of resource has been received.
func (c *Client) note(typeURL string) {
	if c.synced[typeURL] || c.versions[typeURL] == nil {
		return
	}
	c.synced[typeURL] = true
	if len(c.synced) == len(c.versions) {
		close(c.ready)
	}
}

// apply updates the stores with the valid resources of a response. The error names the others.
func (c *Client) apply(resp *discovery.DeltaDiscoveryResponse) error {
	versions := c.versions[resp.GetTypeUrl()]
	if versions == nil {
		return fmt.Errorf("type %q was not requested", resp.GetTypeUrl())
	}
	var errs []error
	accept := func(r *discovery.Resource, parse func([]byte) error) {
		if err := parse(r.GetResource().GetValue()); err != nil {
			// Without a version, so that istiod sends it again on a new stream.
			delete(versions, r.GetName())
			errs = append(errs, fmt.Errorf("%s: %w", r.GetName(), err))
			return
		}
		versions[r.GetName()] = r.GetVersion()
	}
	switch resp.GetTypeUrl() {
	case typeAddress:
		var ws []*workload.Workload
		var svcs []*workload.Service
		for _, r := range resp.GetResources() {
			accept(r, func(b []byte) error {
				w, svc, err := parseAddress(b)
				if w != nil {
					ws = append(ws, w)
				}
				if svc != nil {
					svcs = append(svcs, svc)
				}
				return err
			})
		}
		c.workloads.Update(ws, svcs, resp.GetRemovedResources())
	case typeAuthorization:
		var ps []*policy.Policy
		for _, r := range resp.GetResources() {
			accept(r, func(b []byte) error {
				p, err := parseAuthorization(b)
				if p != nil {
					ps = append(ps, p)
				}
				return err
			})
		}
		c.policies.Update(ps, resp.GetRemovedResources())
	}
	for _, name := range resp.GetRemovedResources() {
		delete(versions, name)
	}
	return errors.Join(errs...)
}

func parseAddress(b []byte) (*workload.Workload, *workload.Service, error) {
	var a workloadapi.Address
	if err := proto.Unmarshal(b, &a); err != nil {
		return nil, nil, fmt.Errorf("parsing an address: %w", err)
	}
	switch t := a.GetType().(type) {
	case *workloadapi.Address_Workload:
		w, err := workload.ParseWorkload(t.Workload)
		return w, nil, err
	case *workloadapi.Address_Service:
		s, err := workload.ParseService(t.Service)
		return nil, s, err
	}
	return nil, nil, errors.New("address is neither a workload nor a service")
}

func parseAuthorization(b []byte) (*policy.Policy, error) {
	var a security.Authorization
	if err := proto.Unmarshal(b, &a); err != nil {
		return nil, fmt.Errorf("parsing a policy: %w", err)
	}
	return policy.Parse(&a)
}
