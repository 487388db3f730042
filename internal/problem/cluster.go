package problem

// The cluster itself: creating it, reaching it, its nodes, its addresses.
var (
	ClusterUnreachable = Kind{
		ID: "LAB-CLUSTER-UNREACHABLE", Layer: LayerCluster, Number: 0,
		Title: "the cluster's API server does not answer",
		Advice: []string{
			"Check `kubectl config current-context` and that its cluster runs.",
			"If the lab's own cluster is broken, `mage sm:delete` and `mage sm:install` make it anew.",
		},
	}
	ClusterCreateFailed = Kind{
		ID: "LAB-CLUSTER-CREATE", Layer: LayerCluster, Number: 1,
		Title:  "the cluster could not be created",
		Advice: []string{"Read what it says of itself above (kind's output, or the log of a process), then run `mage sm:install` again."},
	}
	ClusterForeign = Kind{
		ID: "LAB-CLUSTER-FOREIGN", Layer: LayerCluster, Number: 2,
		Title: "the cluster was not created by the lab, so the lab neither uses nor deletes it",
		Advice: []string{
			"Choose another name with SM_CLUSTER, or delete the cluster yourself if it is yours.",
		},
	}
	ClusterNone = Kind{
		ID: "LAB-CLUSTER-NONE", Layer: LayerCluster, Number: 3,
		Title:  "there is no cluster to work on",
		Advice: []string{"Run `mage sm:install` first.", "With INSTALL_KIND=n, point KUBECONFIG at a cluster and choose a context."},
	}
	KubeconfigInvalid = Kind{
		ID: "LAB-KUBECONFIG-INVALID", Layer: LayerCluster, Number: 4,
		Title:  "the kubeconfig cannot be used",
		Advice: []string{"Check KUBECONFIG and `kubectl config view`."},
	}
	NodeTuneFailed = Kind{
		ID: "LAB-NODE-TUNE", Layer: LayerCluster, Number: 5,
		Title:  "a kernel setting of a node could not be changed",
		Advice: []string{"Set the key named above on the Docker host itself as root, then run the target again."},
	}
	PoolExhausted = Kind{
		ID: "LAB-POOL-NO-ADDRESSES", Layer: LayerCluster, Number: 6,
		Title:  "the Docker network has no free range for load-balancer addresses",
		Advice: []string{"Delete other labs on the same network, or recreate the Docker network with a larger subnet."},
	}
	ClusterVersion = Kind{
		ID: "LAB-CLUSTER-VERSION", Layer: LayerCluster, Number: 7,
		Title:  "the cluster's Kubernetes version is outside what this Istio supports",
		Advice: []string{"Use Kubernetes 1.32 to 1.36."},
	}
	GatewayAPIVersion = Kind{
		ID: "LAB-GATEWAY-API-VERSION", Layer: LayerCluster, Number: 7,
		Title: "the cluster has Gateway API CRDs of somebody else's that do not serve what the lab needs",
		Advice: []string{
			"Bring the Gateway API in the cluster to a version that serves v1 (v1.0.0 or newer), by whatever installed it.",
			"If nobody needs it, delete its CRDs: the lab then installs its own.",
		},
	}
	ClusterStopped = Kind{
		ID: "LAB-CLUSTER-STOPPED", Layer: LayerCluster, Number: 8,
		Title:  "a part of the cluster that should run does not",
		Advice: []string{"Run `mage sm:install`: it starts what does not run, and keeps the rest as it is."},
	}
)

func clusterKinds() []Kind {
	return []Kind{
		ClusterUnreachable, ClusterCreateFailed, ClusterForeign, ClusterNone, KubeconfigInvalid,
		NodeTuneFailed, PoolExhausted, ClusterVersion, GatewayAPIVersion, ClusterStopped,
	}
}
