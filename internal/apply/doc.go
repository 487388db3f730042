// Package apply brings objects into a cluster with server-side apply, tells when they
// are ready or why not, and takes away what the lab brought, and only that.
//
// The cluster is the only memory. Every object carries three labels: who manages it,
// which lab it is of, and which part of the lab; what bears a part's labels and is no
// longer among the part's objects is pruned. An object that was there before the lab is
// marked as adopted: deleting the part then gives it back instead of deleting it.
//
// Fields that controllers write into the lab's objects (istiod's and MetalLB's
// caBundle, a DaemonSet's status) stay theirs: the lab neither sets nor compares them.
package apply
