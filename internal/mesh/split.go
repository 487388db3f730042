package mesh

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"ambientlab/internal/problem"
)

// Weights are the shares that Services have of the requests to another one, by their names. The shares add up to 100.
type Weights map[string]int

func (w Weights) String() string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(w)) {
		words = append(words, fmt.Sprintf("%d %% to %s", w[name], name))
	}
	if len(words) == 0 {
		return "nothing"
	}
	return strings.Join(words, ", ")
}

// Splits tells whether a waypoint sends a Service's requests to other Services of its namespace with these weights, on
// every route.
func Splits(d *Dump, s Service, want Weights) (held bool, reason string) {
	managers, reason := d.serviceManagers(s)
	if reason != "" {
		return false, reason
	}
	for _, manager := range managers {
		routes := d.weights(manager)
		if len(routes) == 0 {
			return false, fmt.Sprintf("the waypoint has no route for %s", s)
		}
		for _, found := range routes {
			if !maps.Equal(found, want) {
				return false, fmt.Sprintf("the waypoint sends requests for %s to %s, not %s", s, found, want)
			}
		}
	}
	return true, ""
}

// SplitsNothing tells whether a waypoint sends every request for a Service to that Service. A waypoint that has nothing
// for the Service splits nothing.
func SplitsNothing(d *Dump, s Service) (gone bool, reason string) {
	managers, _ := d.serviceManagers(s)
	for _, manager := range managers {
		for _, found := range d.weights(manager) {
			if !maps.Equal(found, Weights{s.Name: 100}) {
				return false, fmt.Sprintf("the waypoint still sends requests for %s to %s", s, found)
			}
		}
	}
	return true, ""
}

// weights gives the shares on each route of a connection manager.
func (d *Dump) weights(manager node) []Weights {
	var all []Weights
	for _, host := range d.virtualHosts(manager) {
		for _, r := range host.get("routes").list() {
			all = append(all, weightsOf(r))
		}
	}
	return all
}

// weightsOf gives the shares that Services have of the requests on a route.
func weightsOf(r node) Weights {
	found := Weights{}
	action := r.get("route")
	if one := action.get("cluster").str(); one != "" {
		found[routedService(one)] = 100
	}
	for _, cluster := range action.get("weighted_clusters", "clusters").list() {
		found[routedService(cluster.get("name").str())] += int(cluster.get("weight").number())
	}
	return found
}

// routedService gives the name of the Service that a cluster leads to. Istio ends the names of clusters with the
// Service's host name, and those of a waypoint's own Services begin with inbound-vip|<port>|<protocol>|.
func routedService(cluster string) string {
	host := cluster[strings.LastIndexByte(cluster, '|')+1:]
	name, _, _ := strings.Cut(host, ".")
	return name
}

// SplitOn is met when every replica of the target's waypoint sends the Service's requests to other Services with these
// weights, on connections that were open before as well. route is the name of the HTTPRoute that asks for it.
func SplitOn(t Target, route string, want Weights) Condition {
	return Condition{
		title: "split of the requests for " + t.Service.Name,
		look:  onWaypoint(t, func(d *Dump) (bool, string) { return Splits(d, t.Service, want) }),
		explain: explainOnWaypoint(t, func(ctx context.Context, m *Mesh) (*problem.Problem, error) {
			object, err := get[gatewayv1.HTTPRoute](ctx, m, httpRoutes(), t.Service.Namespace, route)
			if err != nil {
				return nil, err
			}
			return RouteTrouble(t.Service, route, object), nil
		}),
	}
}

// SplitOff is met when every replica of the target's waypoint sends the Service's requests to that Service alone.
func SplitOff(t Target) Condition {
	return Condition{
		title:   fmt.Sprintf("split of the requests for %s, off", t.Service.Name),
		look:    offWaypoint(t, func(d *Dump) (bool, string) { return SplitsNothing(d, t.Service) }),
		explain: explainOnWaypoint(t, nil),
	}
}

// RouteTrouble says why an HTTPRoute has no effect on the requests for a Service at its waypoint.
func RouteTrouble(s Service, name string, route *gatewayv1.HTTPRoute) *problem.Problem {
	if route == nil {
		return problem.New(problem.ConfigNotAttached, nil, "HTTPRoute %s/%s does not exist", s.Namespace, name)
	}
	if !attachedTo(s, route) {
		var parents []string
		for _, ref := range route.Spec.ParentRefs {
			parents = append(parents, parentName(ref))
		}
		return problem.New(problem.ConfigNotAttached, nil, "HTTPRoute %s is attached to %s, not to Service/%s", name,
			orNone(parents), s.Name)
	}
	for _, parent := range route.Status.Parents {
		for _, c := range parent.Conditions {
			if c.Status != "True" {
				return problem.New(problem.ConfigNotAttached, nil, "HTTPRoute %s: %s", name,
					join(c.Type+" is "+string(c.Status), c.Reason, c.Message))
			}
		}
	}
	return nil
}

// WeightsTrouble says where the weights that an HTTPRoute asks for differ from those that are wanted.
func WeightsTrouble(want Weights, route *gatewayv1.HTTPRoute) *problem.Problem {
	if route == nil {
		return nil // RouteTrouble says so
	}
	for _, rule := range route.Spec.Rules {
		found := Weights{}
		for _, ref := range rule.BackendRefs {
			weight := 1 // the Gateway API's default
			if ref.Weight != nil {
				weight = int(*ref.Weight)
			}
			found[string(ref.Name)] += weight
		}
		if !maps.Equal(found, want) {
			return problem.New(problem.ConfigNotAttached, nil, "HTTPRoute %s asks for %s, not for "+
				"%s", route.Name, found,
				want)
		}
	}
	return nil
}

// AttachedRoutes lists the HTTPRoutes that are attached to a target's Service.
func (o *Objects) AttachedRoutes() []*gatewayv1.HTTPRoute {
	return slices.DeleteFunc(slices.Clone(o.Routes), func(r *gatewayv1.HTTPRoute) bool {
		return !attachedTo(o.Target.Service, r)
	})
}

// Route gives an HTTPRoute by its name, or nil.
func (o *Objects) Route(name string) *gatewayv1.HTTPRoute {
	for _, r := range o.Routes {
		if r.Name == name {
			return r
		}
	}
	return nil
}

// attachedTo tells whether a Service is a parent of a route.
func attachedTo(s Service, route *gatewayv1.HTTPRoute) bool {
	return slices.ContainsFunc(route.Spec.ParentRefs,
		func(ref gatewayv1.ParentReference) bool { return parentName(ref) == "Service/"+s.Name })
}

func parentName(ref gatewayv1.ParentReference) string {
	kind := "Gateway"
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	return kind + "/" + string(ref.Name)
}
