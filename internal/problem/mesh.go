package problem

// Istio: its components, the waypoint, and whether configuration reached a proxy.
var (
	ZtunnelDown = LayerMesh.kind("LAB-ZTUNNEL-NOT-CONNECTED", 0,
		"a node has no connected ztunnel, so no pod of an ambient namespace can start on it",
		"Check the ztunnel pod on that node and its log: `kubectl -n istio-system get pods -l app=ztunnel -o wide`.")
	WaypointNotReady = LayerMesh.kind("LAB-WAYPOINT-NOT-READY", 1,
		"the waypoint is not ready, so traffic bypasses it and its layer-7 rules have no effect",
		"The reason above says what is missing; `kubectl describe gateway` prints Istio's conditions.")
	ConfigRejected = LayerMesh.kind("LAB-CONFIG-REJECTED", 2,
		"a proxy rejected the configuration that istiod sent (NACK)",
		"Envoy's message above names the resource. Correct the object that istiod made it from.")
	ConfigNotAttached = LayerMesh.kind("LAB-CONFIG-NOT-ATTACHED", 3, "an Istio object has no effect on its target",
		"The reason above says why. Check the object's namespace, hosts, gateways and targetRefs, then run the "+
			"target of its lesson again.")
	IstiodDisconnected = LayerMesh.kind("LAB-ISTIOD-NOT-CONNECTED", 4,
		"a proxy is not connected to istiod, so it receives no changes",
		"Check that istiod runs, and its log: `kubectl -n istio-system get pods -l app=istiod`.")
	ConfigNotArrived = LayerMesh.kind("LAB-CONFIG-NOT-ARRIVED", 5,
		"a proxy does not have the configuration that was applied",
		"The difference is named above. `mage sm:proxyConfig` prints what the proxy has.")
	ProxyUnreachable = LayerMesh.kind("LAB-PROXY-UNREACHABLE", 6,
		"the admin port of a proxy cannot be reached through a port-forward",
		"Check that the pod runs and that this user may create pods/portforward.")
	GatewayOverlooked = LayerMesh.kind("LAB-GATEWAY-OVERLOOKED", 7, "istiod does not see the ready pods of a Gateway",
		"The lab tried to make istiod read them again, without success. Restart istiod: `kubectl -n istio-system "+
			"rollout restart deployment istiod`.",
		"Then run the same target again: it continues from there.")
	WaypointOff = LayerMesh.kind("LAB-WAYPOINT-OFF", 8, "the lesson needs the waypoint, and there is none",
		"Run `mage sm:waypoint` first, then the same target again.")
	LessonNeeded = LayerMesh.kind("LAB-LESSON-NEEDED", 9, "another lesson that is on depends on this one",
		"Turn off the lessons named above first, in the reverse order in which they were turned on.")
	LessonExcluded = LayerMesh.kind("LAB-LESSON-EXCLUDED", 9, "a lesson that is on excludes this one",
		"Turn off the lesson named above first.")
	LessonRemains = LayerMesh.kind("LAB-LESSON-REMAINS", 9,
		"a lesson was turned off, and objects that the lab did not make keep its effect",
		"Delete the objects named above if you no longer need them. The lab deletes only what it made.")
)

func meshKinds() []Kind {
	return []Kind{
		ZtunnelDown, WaypointNotReady, ConfigRejected, ConfigNotAttached, IstiodDisconnected, ConfigNotArrived,
		ProxyUnreachable, GatewayOverlooked, WaypointOff, LessonNeeded, LessonExcluded,
		LessonRemains,
	}
}
