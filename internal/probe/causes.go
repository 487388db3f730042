package probe

import (
	"fmt"
	"slices"
	"strings"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/mesh"
	"ambientlab/internal/problem"
)

// causes gives the likely reasons for a result that is not proven, the more basic first. err says why the objects could
// not be read.
func causes(o *mesh.Objects, err error, claim Claim, report Report, result Result) []string {
	if err != nil {
		return []string{fmt.Sprintf("The cluster's objects could not be read to find a cause: %v", err)}
	}
	var found []string
	add := func(trouble *problem.Problem, effect string) {
		if trouble == nil {
			return
		}
		text := strings.ToUpper(trouble.Seen[:1]) + trouble.Seen[1:]
		if effect != "" {
			text += ". " + effect
		}
		if !slices.Contains(found, text) {
			found = append(found, text)
		}
	}
	add(o.ZtunnelTrouble(), "No pod on that node reaches another pod of the mesh or is reached by one. "+
		"`mage sm:status` says why; `mage sm:install` makes what is missing.")
	if claim.Shot.Caller == Appa && report.Evidence == OnTraffic {
		add(mesh.PodMeshTrouble(names.AppA, o.AppPods[names.AppA]),
			"Its requests leave in plain text and no ztunnel takes them to the waypoint. "+
				"Remove the label istio.io/dataplane-mode=none, or restart the pod if its node was restarted.")
	}
	if claim.NeedsWaypoint() {
		for _, trouble := range o.WaypointTroubles() {
			add(trouble, "Until the waypoint is ready, traffic goes straight to the pod and no layer-7 rule applies. "+
				"`mage sm:waypoint` makes what is missing; `kubectl -n "+o.Target.Service.Namespace+
				" describe gateway appb-waypoint` says more.")
		}
		if claim.Shot.Caller == Gateway {
			add(mesh.IngressTrouble(o.Target.Service, o.Service),
				"The ingress gateway then sends requests straight to the pod, around the waypoint, "+
					"its delay and its policy.")
		}
	}
	for _, cause := range claim.Causes {
		add(cause.Find(o, report.Lessons), cause.Effect)
	}
	if len(found) == 0 && result.Verdict == Refuted {
		found = append(found,
			"None of the known causes was found. Compare `mage sm:proxyConfig`, which shows what the waypoint runs, "+
				"with what was applied.")
	}
	return found
}
