// Package bundle keeps the images that a lab needs as one OCI image layout on disk, so that a lab can be installed
// without a network.
//
// A bundle is a folder, or a .tar of that folder, in the format of the OCI image layout specification 1.0: oci-layout,
// index.json and blobs/sha256. Each entry of index.json is one image for one platform. Its full reference is in the
// annotation org.opencontainers.image.ref.name, and also in io.containerd.image.name, from which containerd takes the
// name of an imported image. So crane, skopeo and `ctr images import` can read a bundle.
//
// [Create] and [Pull] write a bundle, [Open] reads one, [LoadNodeImage] and [LoadNodes] load its images into Docker and
// into nodes. Blobs are named after the digest of their content and moved into place when they are complete; index.json
// and oci-layout are written last. So an interrupted write leaves no bundle, and the next write uses the complete
// blobs.
package bundle
