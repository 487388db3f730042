package mesh

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/anypb"
)

// Types of resources.
const (
	typePrefix   = "type.googleapis.com/envoy.config."
	clustersXDS  = typePrefix + "cluster.v3.Cluster"
	listenersXDS = typePrefix + "listener.v3.Listener"
	routesXDS    = typePrefix + "route.v3.RouteConfiguration"
	endpointsXDS = typePrefix + "endpoint.v3.ClusterLoadAssignment"
)

// maxMessage is what Envoy takes, too.
const maxMessage = 200 << 20

// ask has one conversation with istiod, in the order in which Envoy asks: clusters, the endpoints that these name,
// listeners, the routes that those name.
func ask(ctx context.Context, conn *grpc.ClientConn, who *core.Node) (Resources, error) {
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).
		StreamAggregatedResources(ctx, grpc.MaxCallRecvMsgSize(maxMessage))
	if err != nil {
		return Resources{}, err
	}
	defer func() { _ = stream.CloseSend() }()
	s := &conversation{stream: stream, node: who}
	clusters, err := s.get(clustersXDS, nil)
	if err != nil {
		return Resources{}, err
	}
	names, err := endpointNames(clusters)
	if err != nil {
		return Resources{}, err
	}
	endpoints, err := s.get(endpointsXDS, names)
	if err != nil {
		return Resources{}, err
	}
	listeners, err := s.get(listenersXDS, nil)
	if err != nil {
		return Resources{}, err
	}
	var found Resources
	if found.Listeners, err = toJSON(listeners); err != nil {
		return Resources{}, err
	}
	routes, err := s.get(routesXDS, routeNames(found.Listeners))
	if err != nil {
		return Resources{}, err
	}
	for _, kind := range []struct {
		resources []*anypb.Any
		into      *[]json.RawMessage
	}{{clusters, &found.Clusters}, {routes, &found.Routes}, {endpoints, &found.Endpoints}} {
		if *kind.into, err = toJSON(kind.resources); err != nil {
			return Resources{}, err
		}
	}
	return found, nil
}

type conversation struct {
	stream discovery.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	node   *core.Node
}

// get asks for the resources of a type and accepts the answer. With names, only those are asked for, and none means
// none: istiod answers no such question.
func (s *conversation) get(kind string, names []string) ([]*anypb.Any, error) {
	wildcard := kind == clustersXDS || kind == listenersXDS
	if !wildcard && len(names) == 0 {
		return nil, nil
	}
	request := &discovery.DiscoveryRequest{Node: s.node, TypeUrl: kind, ResourceNames: names}
	if err := s.stream.Send(request); err != nil {
		return nil, fmt.Errorf("asking for %s: %w", kind, err)
	}
	s.node = nil // istiod knows it now, as it does Envoy's
	for {
		response, err := s.stream.Recv()
		if err != nil {
			return nil, fmt.Errorf("waiting for %s: %w", kind, err)
		}
		acknowledge := &discovery.DiscoveryRequest{
			TypeUrl: response.TypeUrl, VersionInfo: response.VersionInfo, ResponseNonce: response.Nonce,
		}
		if response.TypeUrl == kind {
			acknowledge.ResourceNames = names
			// A failure to accept shows at the next question.
			_ = s.stream.Send(acknowledge)
			return response.Resources, nil
		}
		// istiod sends what changed without being asked; the next look asks for it.
	}
}

// endpointNames are the names under which clusters look for their endpoints.
func endpointNames(clusters []*anypb.Any) ([]string, error) {
	var names []string
	for _, raw := range clusters {
		c := &clusterv3.Cluster{}
		if err := raw.UnmarshalTo(c); err != nil {
			return nil, fmt.Errorf("reading a cluster: %w", err)
		}
		if c.GetType() != clusterv3.Cluster_EDS {
			continue
		}
		name := c.GetEdsClusterConfig().GetServiceName()
		if name == "" {
			name = c.GetName()
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// routeNames are the names of the route configurations that listeners want.
func routeNames(listeners []json.RawMessage) []string {
	var names []string
	for _, raw := range listeners {
		listener, err := decode(raw)
		if err != nil {
			continue // this program has just written it
		}
		listener.each(func(n node) bool {
			if name := n.get("rds", "route_config_name").str(); name != "" {
				names = append(names, name)
			}
			return true
		})
	}
	slices.Sort(names)
	return slices.Compact(names)
}
