package problem

// Istio: its components, the waypoint, and whether configuration reached a proxy.
var (
	ZtunnelDown = Kind{
		ID: "LAB-ZTUNNEL-NOT-CONNECTED", Layer: LayerMesh, Number: 0,
		Title: "no ztunnel serves a node, so no pod of an ambient namespace can start there",
		Advice: []string{
			"Look at ztunnel on that node first: `kubectl -n istio-system get pods -l app=ztunnel -o wide` and its logs.",
		},
	}
	WaypointNotReady = Kind{
		ID: "LAB-WAYPOINT-NOT-READY", Layer: LayerMesh, Number: 1,
		Title: "the waypoint is not ready; until it is, traffic goes around it and no layer-7 rule holds",
		Advice: []string{
			"The reason above names what is missing; `kubectl describe gateway` has Istio's own words.",
		},
	}
	ConfigRejected = Kind{
		ID: "LAB-CONFIG-REJECTED", Layer: LayerMesh, Number: 2,
		Title:  "a proxy rejected the configuration that istiod sent (NACK)",
		Advice: []string{"Envoy's words above name the resource; correct the object it comes from."},
	}
	ConfigNotAttached = Kind{
		ID: "LAB-CONFIG-NOT-ATTACHED", Layer: LayerMesh, Number: 3,
		Title:  "Istio did not attach a policy to its target",
		Advice: []string{"Istio's message above says why; check the policy's targetRefs and namespace."},
	}
	IstiodDisconnected = Kind{
		ID: "LAB-ISTIOD-NOT-CONNECTED", Layer: LayerMesh, Number: 4,
		Title:  "a proxy is not connected to istiod, so no change reaches it",
		Advice: []string{"See that istiod runs: `kubectl -n istio-system get pods -l app=istiod` and its logs."},
	}
	ConfigNotArrived = Kind{
		ID: "LAB-CONFIG-NOT-ARRIVED", Layer: LayerMesh, Number: 5,
		Title:  "a proxy does not hold the configuration that was applied",
		Advice: []string{"Compare with `mage sm:proxyConfig`; the difference is named above."},
	}
	ProxyUnreachable = Kind{
		ID: "LAB-PROXY-UNREACHABLE", Layer: LayerMesh, Number: 6,
		Title:  "a proxy's admin port cannot be reached through a port-forward",
		Advice: []string{"See that the pod runs and that this user may create pods/portforward."},
	}
	GatewayOverlooked = Kind{
		ID: "LAB-GATEWAY-OVERLOOKED", Layer: LayerMesh, Number: 7,
		Title: "istiod does not see the pods that are ready behind a Gateway",
		Advice: []string{
			"The lab has already reminded istiod, without effect. Restart it: `kubectl -n istio-system rollout restart deployment istiod`.",
			"Then run the same target again: it goes on from what is there.",
		},
	}
	WaypointOff = Kind{
		ID: "LAB-WAYPOINT-OFF", Layer: LayerMesh, Number: 8,
		Title:  "the lesson works at the waypoint, and there is none",
		Advice: []string{"Run `mage sm:waypoint` first, then the same target again."},
	}
	LessonNeeded = Kind{
		ID: "LAB-LESSON-NEEDED", Layer: LayerMesh, Number: 9,
		Title:  "a lesson that is on stands on what would be taken away",
		Advice: []string{"Take the lessons named above back first: the last one that was turned on goes first."},
	}
)

func meshKinds() []Kind {
	return []Kind{
		ZtunnelDown, WaypointNotReady, ConfigRejected, ConfigNotAttached, IstiodDisconnected, ConfigNotArrived, ProxyUnreachable,
		GatewayOverlooked, WaypointOff, LessonNeeded,
	}
}
