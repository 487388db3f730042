package problem

// The cluster itself: creating it, reaching it, its nodes, its addresses.
var (
	ClusterUnreachable = Kind{
		ID: "LAB-CLUSTER-UNREACHABLE", Layer: LayerCluster, Number: 0,
		Title: "the cluster's API server does not answer",
		Advice: []string{
			"Check that the cluster of `kubectl config current-context` is running.",
			"If the cluster is the lab's own, `mage sm:delete` and then `mage sm:install` create it again.",
		},
	}
	ClusterCreateFailed = Kind{
		ID: "LAB-CLUSTER-CREATE", Layer: LayerCluster, Number: 1,
		Title: "the cluster could not be created",
		Advice: []string{
			"Read the output above (kind's, or the log of a control-plane process), fix the cause, then run " +
				"`mage sm:install` again.",
		},
	}
	ClusterForeign = Kind{
		ID: "LAB-CLUSTER-FOREIGN", Layer: LayerCluster, Number: 2,
		Title: "the lab did not create this cluster, so the lab neither uses nor deletes it",
		Advice: []string{
			"Choose another name with SM_CLUSTER. If the cluster is yours and no longer needed, delete it yourself.",
		},
	}
	ClusterNone = Kind{
		ID: "LAB-CLUSTER-NONE", Layer: LayerCluster, Number: 3,
		Title: "there is no cluster that the target can use",
		Advice: []string{
			"Run `mage sm:install` first.",
			"With INSTALL_KIND=n, set KUBECONFIG to the cluster's kubeconfig and choose a context.",
		},
	}
	KubeconfigInvalid = Kind{
		ID: "LAB-KUBECONFIG-INVALID", Layer: LayerCluster, Number: 4,
		Title:  "the kubeconfig file cannot be read, written or used",
		Advice: []string{"Check the KUBECONFIG variable, the file's permissions and `kubectl config view`."},
	}
	NodeTuneFailed = Kind{
		ID: "LAB-NODE-TUNE", Layer: LayerCluster, Number: 5,
		Title: "a kernel setting of a node could not be read or raised",
		Advice: []string{"As root on the Docker host, set the key named above with `sysctl -w`, " +
			"then run the target again."},
	}
	PoolExhausted = Kind{
		ID: "LAB-POOL-NO-ADDRESSES", Layer: LayerCluster, Number: 6,
		Title: "the Docker network has no free addresses for load balancers",
		Advice: []string{
			"Delete other labs on the same Docker network, or create the network again with a larger subnet.",
		},
	}
	ClusterVersion = Kind{
		ID: "LAB-CLUSTER-VERSION", Layer: LayerCluster, Number: 7,
		Title:  "this Istio version does not support the cluster's Kubernetes version",
		Advice: []string{"Use Kubernetes 1.32 to 1.36."},
	}
	GatewayAPIVersion = Kind{
		ID: "LAB-GATEWAY-API-VERSION", Layer: LayerCluster, Number: 7,
		Title: "the cluster's Gateway API CRDs, which the lab did not install, are too old for the lab",
		Advice: []string{
			"Upgrade the Gateway API CRDs to v1.0.0 or newer, with the tool that installed them.",
			"If no other program uses them, delete them: the lab then installs its own.",
		},
	}
	ClusterStopped = Kind{
		ID: "LAB-CLUSTER-STOPPED", Layer: LayerCluster, Number: 8,
		Title:  "a part of the cluster is stopped",
		Advice: []string{"Run `mage sm:install`: it starts the stopped parts and changes nothing else."},
	}
	APIServerElsewhere = Kind{
		ID: "LAB-API-SERVER-ELSEWHERE", Layer: LayerCluster, Number: 0,
		Title: "the API server of the lab's cluster cannot be reached from where the lab runs",
		Advice: []string{
			"In a container that uses the host's Docker engine: start it with `--network host`, " +
				"or connect it to the nodes' network with `docker network connect kind CONTAINER`.",
			"With an engine on another machine or in another container (DOCKER_HOST): run the lab there, " +
				"or add a route to the nodes' network.",
			"Or create a cluster that can be reached yourself, and set INSTALL_KIND=n.",
		},
	}
	ClusterUnsuitable = Kind{
		ID: "LAB-CLUSTER-UNSUITABLE", Layer: LayerCluster, Number: 7,
		Title:  "something in the cluster prevents the lab's ambient mesh from working",
		Advice: []string{"Change what is named above, or use another cluster."},
	}
	ClusterLogin = Kind{
		ID: "LAB-CLUSTER-LOGIN", Layer: LayerCluster, Number: 9,
		Title: "the login to the cluster failed",
		Advice: []string{
			"Run `kubectl get nodes` in the same terminal: it uses the same credentials and the same login plug-in.",
			"Log in with your provider's own command, then run the target again.",
		},
	}
)

func clusterKinds() []Kind {
	return []Kind{
		ClusterUnreachable, ClusterCreateFailed, ClusterForeign, ClusterNone, KubeconfigInvalid,
		NodeTuneFailed, PoolExhausted, ClusterVersion, GatewayAPIVersion, ClusterStopped,
		APIServerElsewhere, ClusterUnsuitable, ClusterLogin,
	}
}
