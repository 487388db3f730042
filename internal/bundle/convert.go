package bundle

import (
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// toOCI writes a manifest in OCI's terms if it is in Docker's. skopeo passes over
// Docker's in a layout as if they were not there (containers/image, oci/layout), though
// the two differ in the names of types only: config and layers stay what they are.
func toOCI(raw []byte, manifest *v1.Manifest) ([]byte, *v1.Manifest, error) {
	if manifest.MediaType != types.DockerManifestSchema2 {
		return raw, manifest, nil
	}
	out := manifest.DeepCopy()
	out.MediaType = types.OCIManifestSchema1
	out.Config.MediaType = ociType(out.Config.MediaType)
	for i := range out.Layers {
		out.Layers[i].MediaType = ociType(out.Layers[i].MediaType)
	}
	raw, err := json.Marshal(out)
	if err != nil {
		return nil, nil, fmt.Errorf("writing the manifest in OCI's terms: %w", err)
	}
	return raw, out, nil
}

// ociType is OCI's name for a type of Docker's; others stay.
func ociType(t types.MediaType) types.MediaType {
	switch t {
	case types.DockerConfigJSON:
		return types.OCIConfigJSON
	case types.DockerLayer:
		return types.OCILayer
	case types.DockerUncompressedLayer:
		return types.OCIUncompressedLayer
	case types.DockerForeignLayer:
		return types.OCIRestrictedLayer
	}
	return t
}
