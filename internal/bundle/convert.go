package bundle

import (
	"encoding/json"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// toOCI converts a Docker manifest to an OCI manifest, because skopeo ignores Docker manifests in an OCI layout
// (github.com/containers/image, oci/layout). The two differ in media types only: the config and the layers stay the
// same.
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
		return nil, nil, fmt.Errorf("converting the manifest to OCI: %w", err)
	}
	return raw, out, nil
}

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
