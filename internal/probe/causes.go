package probe

import (
	"fmt"
	"slices"
	"strings"
)

// cause is a known reason for a claim that does not hold, in a learner's words.
type cause struct {
	// concerns says for which claims it can be the reason.
	concerns func(Claim) bool
	// words gives the explanation when the facts show the cause, and nothing otherwise.
	words func(Facts, Lessons) string
}

// knownCauses lists what goes wrong silently in ambient, the more basic first.
func knownCauses() []cause {
	return []cause{
		{fromAppa, func(f Facts, _ Lessons) string {
			if f.AppaMeshed {
				return ""
			}
			return "appa's pod is not in the mesh" + because(f.AppaWhyNot) + ": its requests leave in plain text and no ztunnel takes them to the waypoint. Take the label istio.io/dataplane-mode=none away, or restart the pod if its node was restarted."
		}},
		{needsWaypoint, func(f Facts, _ Lessons) string {
			if f.WaypointExists {
				return ""
			}
			return "there is no waypoint: the Gateway appb-waypoint does not exist. `mage sm:waypoint` makes it."
		}},
		{needsWaypoint, func(f Facts, _ Lessons) string {
			if !f.WaypointExists || f.WaypointReady > 0 {
				return ""
			}
			return "the waypoint has no pod that is ready" + because(f.WaypointWaits) + ". Look at `kubectl describe gateway appb-waypoint` and at deploy/appb-waypoint: it may have been scaled to zero."
		}},
		{needsWaypoint, func(f Facts, _ Lessons) string {
			if !f.WaypointExists || f.Programmed {
				return ""
			}
			return "the waypoint's Gateway is not programmed" + because(f.ProgrammedMessage) + "; until it is, ztunnel sends traffic straight to the pod and no layer-7 rule holds."
		}},
		{needsWaypoint, func(f Facts, _ Lessons) string {
			if f.UseWaypoint != "" {
				return ""
			}
			return "Service appb has no label istio.io/use-waypoint, so nobody sends its traffic to the waypoint."
		}},
		{both(needsWaypoint, fromGateway), func(f Facts, _ Lessons) string {
			if f.IngressUseWaypoint == "true" {
				return ""
			}
			return "Service appb has no label istio.io/ingress-use-waypoint=true: the ingress gateway goes straight to the pod and walks around the waypoint, its delay and its policy."
		}},
		{aboutFault, wrongHost},
		{aboutFault, wrongFault},
		{aboutAuthz, unenforced},
		{aboutStrict, func(f Facts, _ Lessons) string {
			if f.StrictTLS {
				return ""
			}
			return "no PeerAuthentication asks for STRICT mutual TLS, so plain text is let in."
		}},
	}
}

func wrongHost(f Facts, l Lessons) string {
	if !l.Fault.On {
		return ""
	}
	if len(f.Routes) == 0 {
		return "there is no VirtualService, so nothing asks the waypoint for a delay."
	}
	for _, r := range f.Routes {
		for _, h := range r.Hosts {
			if h == "appb" || strings.HasPrefix(h, "appb.") && strings.HasSuffix(h, ".svc.cluster.local") {
				return ""
			}
		}
	}
	return fmt.Sprintf("VirtualService %s is for the host %s, which is not appb's Service: the waypoint takes only those for the host that it serves.", f.Routes[0].Name, strings.Join(f.Routes[0].Hosts, ", "))
}

func wrongFault(f Facts, l Lessons) string {
	for _, r := range f.Routes {
		switch {
		case r.Delay == "":
		case !l.Fault.On:
			return fmt.Sprintf("VirtualService %s still asks for a delay of %s.", r.Name, r.Delay)
		case r.Percent != l.Fault.Percent:
			return fmt.Sprintf("VirtualService %s asks for %g %%, claimed are %g %%.", r.Name, r.Percent, l.Fault.Percent)
		case len(r.Paths) > 0 && !slices.Contains(r.Paths, l.Fault.Path):
			return fmt.Sprintf("VirtualService %s delays %s, claimed is %s.", r.Name, strings.Join(r.Paths, ", "), l.Fault.Path)
		}
	}
	return ""
}

func unenforced(f Facts, l Lessons) string {
	attached := false
	for _, p := range f.Policies {
		switch {
		case p.Layer7 && p.Selector:
			return fmt.Sprintf("AuthorizationPolicy %s uses `selector`: waypoints ignore that, and ztunnel, which takes it, cannot see methods. Attach it with `targetRefs` to the Service.", p.Name)
		case p.Layer7 && p.Message != "":
			return fmt.Sprintf("Istio did not take AuthorizationPolicy %s: %s", p.Name, p.Message)
		case p.Layer7 && l.Authz.On && !slices.Contains(p.Targets, "Service/appb"):
			return fmt.Sprintf("AuthorizationPolicy %s is attached to %s, not to Service/appb.", p.Name, strings.Join(p.Targets, ", "))
		}
		attached = attached || slices.Contains(p.Targets, "Service/appb")
	}
	switch {
	case l.Authz.On && !attached:
		return "no AuthorizationPolicy is attached to Service/appb."
	case !l.Authz.On && attached:
		return "an AuthorizationPolicy is still attached to Service/appb."
	}
	return ""
}

// causes explains a result that is not proven.
func causes(facts Facts, err error, claim Claim, lessons Lessons, result Result) []string {
	if err != nil {
		return []string{fmt.Sprintf("The cluster's objects could not be looked at for a reason: %v", err)}
	}
	var found []string
	for _, c := range knownCauses() {
		if !c.concerns(claim) {
			continue
		}
		if words := c.words(facts, lessons); words != "" {
			found = append(found, strings.ToUpper(words[:1])+words[1:])
		}
	}
	if len(found) == 0 && result.Verdict == Refuted {
		found = append(found, "None of the known causes was found. `mage sm:proxyConfig` shows what the waypoint runs; compare it with what was applied.")
	}
	return found
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return " (" + reason + ")"
}

func everyShot(c Claim) []Shot { return append(slices.Clone(c.Controls), c.Shot) }

func fromAppa(c Claim) bool    { return c.Shot.Who == Appa }
func fromGateway(c Claim) bool { return c.Shot.Who == Gateway }

func needsWaypoint(c Claim) bool { return c.NeedsWaypoint() }

func aboutFault(c Claim) bool { return strings.HasPrefix(c.ID, "fault") }

func aboutAuthz(c Claim) bool {
	return strings.HasPrefix(c.ID, "authz") || strings.HasPrefix(c.ID, "reach")
}

func aboutStrict(c Claim) bool { return strings.HasSuffix(c.ID, "-closed") }

func both(one, other func(Claim) bool) func(Claim) bool {
	return func(c Claim) bool { return one(c) && other(c) }
}
