package problem

// Istio: its components, the waypoint, and whether configuration reached a proxy.
var (
	ZtunnelDown = Kind{
		ID: "LAB-ZTUNNEL-NOT-CONNECTED", Layer: LayerMesh, Number: 0,
		Title: "a node has no connected ztunnel, so no pod of an ambient namespace can start on it",
		Advice: []string{
			"Check the ztunnel pod on that node and its log: " +
				"`kubectl -n istio-system get pods -l app=ztunnel -o wide`.",
		},
	}
	WaypointNotReady = Kind{
		ID: "LAB-WAYPOINT-NOT-READY", Layer: LayerMesh, Number: 1,
		Title: "the waypoint is not ready, so traffic bypasses it and its layer-7 rules have no effect",
		Advice: []string{
			"The reason above says what is missing; `kubectl describe gateway` prints Istio's conditions.",
		},
	}
	ConfigRejected = Kind{
		ID: "LAB-CONFIG-REJECTED", Layer: LayerMesh, Number: 2,
		Title:  "a proxy rejected the configuration that istiod sent (NACK)",
		Advice: []string{"Envoy's message above names the resource. Correct the object that istiod made it from."},
	}
	ConfigNotAttached = Kind{
		ID: "LAB-CONFIG-NOT-ATTACHED", Layer: LayerMesh, Number: 3,
		Title: "an Istio object has no effect on its target",
		Advice: []string{
			"The reason above says why. Check the object's namespace, hosts, gateways and targetRefs, " +
				"then run the target of its lesson again.",
		},
	}
	IstiodDisconnected = Kind{
		ID: "LAB-ISTIOD-NOT-CONNECTED", Layer: LayerMesh, Number: 4,
		Title:  "a proxy is not connected to istiod, so it receives no changes",
		Advice: []string{"Check that istiod runs, and its log: `kubectl -n istio-system get pods -l app=istiod`."},
	}
	ConfigNotArrived = Kind{
		ID: "LAB-CONFIG-NOT-ARRIVED", Layer: LayerMesh, Number: 5,
		Title: "a proxy does not have the configuration that was applied",
		Advice: []string{
			"The difference is named above. `mage sm:proxyConfig` prints what the proxy has.",
		},
	}
	ProxyUnreachable = Kind{
		ID: "LAB-PROXY-UNREACHABLE", Layer: LayerMesh, Number: 6,
		Title:  "the admin port of a proxy cannot be reached through a port-forward",
		Advice: []string{"Check that the pod runs and that this user may create pods/portforward."},
	}
	GatewayOverlooked = Kind{
		ID: "LAB-GATEWAY-OVERLOOKED", Layer: LayerMesh, Number: 7,
		Title: "istiod does not see the ready pods of a Gateway",
		Advice: []string{
			"The lab tried to make istiod read them again, without success. Restart istiod: " +
				"`kubectl -n istio-system rollout restart deployment istiod`.",
			"Then run the same target again: it continues from there.",
		},
	}
	WaypointOff = Kind{
		ID: "LAB-WAYPOINT-OFF", Layer: LayerMesh, Number: 8,
		Title:  "the lesson needs the waypoint, and there is none",
		Advice: []string{"Run `mage sm:waypoint` first, then the same target again."},
	}
	LessonNeeded = Kind{
		ID: "LAB-LESSON-NEEDED", Layer: LayerMesh, Number: 9,
		Title:  "another lesson that is on depends on this one",
		Advice: []string{"Turn off the lessons named above first, in the reverse order in which they were turned on."},
	}
	LessonExcluded = Kind{
		ID: "LAB-LESSON-EXCLUDED", Layer: LayerMesh, Number: 9,
		Title:  "a lesson that is on excludes this one",
		Advice: []string{"Turn off the lesson named above first."},
	}
	LessonRemains = Kind{
		ID: "LAB-LESSON-REMAINS", Layer: LayerMesh, Number: 9,
		Title: "a lesson was turned off, and objects that the lab did not make keep its effect",
		Advice: []string{
			"Delete the objects named above if you no longer need them. The lab deletes only what it made.",
		},
	}
)

func meshKinds() []Kind {
	return []Kind{
		ZtunnelDown, WaypointNotReady, ConfigRejected, ConfigNotAttached, IstiodDisconnected, ConfigNotArrived,
		ProxyUnreachable, GatewayOverlooked, WaypointOff, LessonNeeded, LessonExcluded,
		LessonRemains,
	}
}
