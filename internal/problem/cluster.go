package problem

// The cluster itself: creating it, reaching it, its nodes, its addresses.
var (
	ClusterUnreachable = LayerCluster.kind("LAB-CLUSTER-UNREACHABLE", 0, "the cluster's API server does not answer",
		"Check that the cluster of `kubectl config current-context` is running.",
		"If the cluster is the lab's own, `mage sm:delete` and then `mage sm:install` create it again.")
	ClusterCreateFailed = LayerCluster.kind("LAB-CLUSTER-CREATE", 1, "the cluster could not be created",
		"Read the output above (kind's, or the log of a control-plane process), fix the cause, then run `mage "+
			"sm:install` again.")
	ClusterForeign = LayerCluster.kind("LAB-CLUSTER-FOREIGN", 2,
		"the lab did not create this cluster, so the lab neither uses nor deletes it",
		"Choose another name with SM_CLUSTER. If the cluster is yours and no longer needed, delete it yourself.")
	ClusterNone = LayerCluster.kind("LAB-CLUSTER-NONE", 3, "there is no cluster that the target can use",
		"Run `mage sm:install` first.",
		"With INSTALL_KIND=n, set KUBECONFIG to the cluster's kubeconfig and choose a context.")
	KubeconfigInvalid = LayerCluster.kind("LAB-KUBECONFIG-INVALID", 4,
		"the kubeconfig file cannot be read, written or used",
		"Check the KUBECONFIG variable, the file's permissions and `kubectl config view`.")
	NodeTuneFailed = LayerCluster.kind("LAB-NODE-TUNE", 5, "a kernel setting of a node could not be read or raised",
		"As root on the Docker host, set the key named above with `sysctl -w`, then run the target again.")
	PoolExhausted = LayerCluster.kind("LAB-POOL-NO-ADDRESSES", 6,
		"the Docker network has no free addresses for load balancers",
		"Delete other labs on the same Docker network, or create the network again with a larger subnet.")
	ClusterVersion = LayerCluster.kind("LAB-CLUSTER-VERSION", 7,
		"this Istio version does not support the cluster's Kubernetes version",
		"Use Kubernetes 1.32 to 1.36.")
	GatewayAPIVersion = LayerCluster.kind("LAB-GATEWAY-API-VERSION", 7,
		"the cluster's Gateway API CRDs, which the lab did not install, are too old for the lab",
		"Upgrade the Gateway API CRDs to v1.0.0 or newer, with the tool that installed them.",
		"If no other program uses them, delete them: the lab then installs its own.")
	ClusterStopped = LayerCluster.kind("LAB-CLUSTER-STOPPED", 8, "a part of the cluster is stopped",
		"Run `mage sm:install`: it starts the stopped parts and changes nothing else.")
	APIServerElsewhere = LayerCluster.kind("LAB-API-SERVER-ELSEWHERE", 0,
		"the API server of the lab's cluster cannot be reached from where the lab runs",
		"In a container that uses the host's Docker engine: start it with `--network host`, or connect it to the "+
			"nodes' network with `docker network connect kind CONTAINER`.",
		"With an engine on another machine or in another container (DOCKER_HOST): run the lab there, or add a route "+
			"to the nodes' network.",
		"Or create a cluster that can be reached yourself, and set INSTALL_KIND=n.")
	ClusterUnsuitable = LayerCluster.kind("LAB-CLUSTER-UNSUITABLE", 7,
		"something in the cluster prevents the lab's ambient mesh from working",
		"Change what is named above, or use another cluster.")
	ClusterLogin = LayerCluster.kind("LAB-CLUSTER-LOGIN", 9, "the login to the cluster failed",
		"Run `kubectl get nodes` in the same terminal: it uses the same credentials and the same login plug-in.",
		"Log in with your provider's own command, then run the target again.")
)

func clusterKinds() []Kind {
	return []Kind{
		ClusterUnreachable, ClusterCreateFailed, ClusterForeign, ClusterNone, KubeconfigInvalid,
		NodeTuneFailed, PoolExhausted, ClusterVersion, GatewayAPIVersion, ClusterStopped,
		APIServerElsewhere, ClusterUnsuitable, ClusterLogin,
	}
}
