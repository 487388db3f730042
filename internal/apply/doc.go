// Package apply brings objects into a cluster with server-side apply, says when they are ready or why not, and deletes
// what the lab brought, and only that.
//
// A Set is the whole objects of one part of the lab; an Overlay is single fields of an object that may belong to
// others. For both, the changes are computed once, by the API server's own dry run, and the same computed changes are
// shown and carried out.
//
// Nothing is remembered outside the cluster. Every object of a Set has three labels: who manages it, which lab it
// belongs to, and which part of the lab. An object with a part's labels that is no longer among the part's objects is
// pruned. An object that existed before the lab is annotated as adopted: deleting the part then only removes the lab's
// fields.
//
// Fields that controllers write into the lab's objects (a webhook's caBundle, a DaemonSet's status) are neither set nor
// compared.
package apply
