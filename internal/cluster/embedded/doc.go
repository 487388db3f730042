// Package embedded runs a lab as plain processes on this machine: etcd, the API server, the controller manager, the
// scheduler, later istiod and MetalLB's controller, each the upstream program, and the pod runner, which is the kubelet
// of the lab's nodes (internal/podrunner).
//
// There is no container runtime. Where the machine allows it, the pod runner runs the pods as processes in network
// namespaces, and they exchange packets; elsewhere, and for pods that work on a node itself, it only reports pods as
// running. Such pods are called simulated.
//
// Everything listens on loopback and is under one folder, with a file per process that says which process it is.
package embedded
