package istiotest

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	caapi "istio.io/api/security/v1alpha1"
	"istio.io/istio/pkg/workloadapi"
	"istio.io/istio/pkg/workloadapi/security"
)

// Istiod simulates istiod: it serves delta xDS and certificates, as far as a node proxy uses them.
type Istiod struct {
	discovery.UnimplementedAggregatedDiscoveryServiceServer

	CA     *CA
	Addr   string
	server *grpc.Server

	mu       sync.Mutex
	kinds    map[string]map[string]*discovery.Resource
	version  int
	changed  chan struct{}
	Requests []*discovery.DeltaDiscoveryRequest
	resumed  int
}

// Types of resources.
const (
	TypeAddress       = "type.googleapis.com/istio.workload.Address"
	TypeAuthorization = "type.googleapis.com/istio.security.Authorization"
)

// NewIstiod returns an istiod that does not listen yet.
func NewIstiod() (*Istiod, error) {
	ca, err := NewCA()
	if err != nil {
		return nil, err
	}
	return &Istiod{
		CA: ca, changed: make(chan struct{}),
		kinds: map[string]map[string]*discovery.Resource{TypeAddress: {}, TypeAuthorization: {}},
	}, nil
}

// Start listens on addr, or on any port of 127.0.0.1 if addr is empty. It may be called again after Stop.
func (s *Istiod) Start(addr string) error {
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	cert, err := s.CA.Certificate(Leaf{DNS: "localhost"})
	if err != nil {
		return err
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		return err
	}
	s.Addr = net.JoinHostPort("localhost", port)
	s.server = grpc.NewServer(grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 15 * time.Second}),
		grpc.Creds(credentials.NewTLS(&tls.Config{
			Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS12,
		})))
	discovery.RegisterAggregatedDiscoveryServiceServer(s.server, s)
	caapi.RegisterIstioCertificateServiceServer(s.server, s.CA)
	go func() { _ = s.server.Serve(l) }()
	return nil
}

// Stop closes every stream.
func (s *Istiod) Stop() { s.server.Stop() }

// Put sets workloads, services and policies.
func (s *Istiod) Put(list ...proto.Message) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	for _, m := range list {
		kind, name := TypeAddress, ""
		switch r := m.(type) {
		case *workloadapi.Workload:
			name = r.GetUid()
			m = &workloadapi.Address{Type: &workloadapi.Address_Workload{Workload: r}}
		case *workloadapi.Service:
			name = r.GetNamespace() + "/" + r.GetHostname()
			m = &workloadapi.Address{Type: &workloadapi.Address_Service{Service: r}}
		case *security.Authorization:
			kind, name = TypeAuthorization, r.GetNamespace()+"/"+r.GetName()
		default:
			return fmt.Errorf("unknown resource %T", m)
		}
		// Encoded now, because the caller may change the object later.
		a, err := anypb.New(m)
		if err != nil {
			return err
		}
		s.kinds[kind][name] = &discovery.Resource{Name: name, Version: fmt.Sprint(s.version), Resource: a}
	}
	s.wake()
	return nil
}

// Delete removes resources by name.
func (s *Istiod) Delete(names ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, n := range names {
		delete(s.kinds[TypeAddress], n)
		delete(s.kinds[TypeAuthorization], n)
	}
	s.wake()
}

// Resumed counts streams whose first request named versions.
func (s *Istiod) Resumed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resumed
}

// Nacks returns the refusals received.
func (s *Istiod) Nacks() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, r := range s.Requests {
		if r.GetErrorDetail() != nil {
			out = append(out, r.GetErrorDetail().GetMessage())
		}
	}
	return out
}

func (s *Istiod) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// DeltaAggregatedResources implements xDS: it sends the resources that a client does not have in their current version,
// and names the removed ones.
func (s *Istiod) DeltaAggregatedResources(
	stream discovery.AggregatedDiscoveryService_DeltaAggregatedResourcesServer,
) error {
	if err := authenticate(stream.Context()); err != nil {
		return err
	}
	requests := make(chan *discovery.DeltaDiscoveryRequest)
	go func() {
		defer close(requests)
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			select {
			case requests <- r:
			case <-stream.Context().Done():
				return
			}
		}
	}()
	held := map[string]map[string]string{}
	sent := map[string]bool{}
	for {
		s.mu.Lock()
		changed := s.changed
		var out []*discovery.DeltaDiscoveryResponse
		for kind, has := range held {
			if r := s.diff(kind, has); r != nil || !sent[kind] {
				if r == nil {
					r = &discovery.DeltaDiscoveryResponse{TypeUrl: kind}
				}
				r.Nonce = fmt.Sprint(len(s.Requests), kind)
				sent[kind] = true
				out = append(out, r)
			}
		}
		s.mu.Unlock()
		for _, r := range out {
			if err := stream.Send(r); err != nil {
				return err
			}
		}
		select {
		case r, ok := <-requests:
			if !ok {
				return nil
			}
			s.mu.Lock()
			s.Requests = append(s.Requests, r)
			if held[r.GetTypeUrl()] == nil {
				held[r.GetTypeUrl()] = map[string]string{}
				for n, v := range r.GetInitialResourceVersions() {
					held[r.GetTypeUrl()][n] = v
				}
				if len(r.GetInitialResourceVersions()) > 0 {
					s.resumed++
				}
			}
			s.mu.Unlock()
		case <-changed:
		}
	}
}

// diff updates has and returns the response for that, or nil if nothing has changed. The caller holds mu.
func (s *Istiod) diff(kind string, has map[string]string) *discovery.DeltaDiscoveryResponse {
	r := &discovery.DeltaDiscoveryResponse{TypeUrl: kind}
	for name, res := range s.kinds[kind] {
		if has[name] != res.GetVersion() {
			r.Resources = append(r.Resources, res)
			has[name] = res.GetVersion()
		}
	}
	for name := range has {
		if s.kinds[kind][name] == nil {
			r.RemovedResources = append(r.RemovedResources, name)
			delete(has, name)
		}
	}
	if len(r.GetResources())+len(r.GetRemovedResources()) == 0 {
		return nil
	}
	return r
}
