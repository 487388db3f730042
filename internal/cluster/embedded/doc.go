// Package embedded runs a lab's control plane as plain processes on this machine: etcd, the API server, the
// controller manager, the scheduler, kwok, and later istiod and MetalLB's controller, each the upstream program.
// There is no container runtime in it, so no pod really runs and no packet is carried: kwok only says that pods
// run, and whoever shows them says that they are simulated.
//
// Everything listens on loopback and lies under one folder, with a file per process that says which process it is.
// kwok's own kwokctl does much the same, but brings its runtimes, downloaders and their several hundred packages
// with it; what is needed of it here is the few hundred lines of this package.
package embedded
