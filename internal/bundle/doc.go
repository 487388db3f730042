// Package bundle keeps every image a lab needs as one OCI image layout on disk, so
// that a lab installs with the network unplugged.
//
// A bundle is a folder (or a .tar of that folder) as the OCI image layout
// specification 1.0 has it: oci-layout, index.json and blobs/sha256. Each entry of
// index.json is one image for one platform; its reference, written out in full, is
// in the annotation org.opencontainers.image.ref.name, and again in
// io.containerd.image.name, which is what containerd names an imported image by. So
// crane, skopeo and `ctr images import` all read a bundle as it is.
//
// [Create] and [Pull] write one, [Open] reads one, [LoadNodeImage] and [LoadNodes]
// bring its images to where they run. Blobs are addressed by their content and put
// in place whole; index.json and oci-layout come last. That is why a write which is
// cut short leaves nothing that passes for a bundle, and why the next one goes on
// where it stopped.
package bundle
