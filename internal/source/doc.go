// Package source builds the lab's programs and images from Go modules and Debian packages, for places that reach
// package registries but no container registry.
//
// Each upstream project is a nested Go module under internal/source/modules with its own go.mod and go.sum: the main
// module's graph stays small, and the checksums say what is built. All of them share one Kubernetes version and one set
// of flags, so that a package compiled for one program serves the next.
//
// A program is built once for each key, which is made of Go's version, the module's files and the flags. An image holds
// such programs, files from the folder of a module, Debian packages if it needs C libraries or iptables, and Envoy from
// its Python wheel. Layers hold nothing that changes from build to build, so the same inputs give the same digests.
package source
