package bundle

import (
	"fmt"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Reference is an image reference in the full form that containerd and the kubelet use.
type Reference struct {
	// Name is registry, repository and tag: docker.io/istio/pilot:1.31.4-distroless. A reference with a digest and no
	// tag is named repository@digest.
	Name string
	// Repository is Name without its tag or digest.
	Repository string
	// Digest is the digest in the reference, or zero.
	Digest v1.Hash
}

// ParseReference reads an image reference as Docker and Kubernetes do: the registry defaults to docker.io, a repository
// of one word is in library/, and the tag defaults to latest.
func ParseReference(ref string) (Reference, error) {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return Reference{}, fmt.Errorf("reading the image reference %q: %w", ref, err)
	}
	out := Reference{Repository: named.Name()}
	if digested, ok := named.(reference.Digested); ok {
		out.Digest, err = v1.NewHash(digested.Digest().String())
		if err != nil {
			return Reference{}, fmt.Errorf("reading the digest in the image reference %q: %w", ref, err)
		}
	}
	switch tagged, ok := named.(reference.Tagged); {
	case ok:
		out.Name = named.Name() + ":" + tagged.Tag()
	case out.Digest != (v1.Hash{}):
		out.Name = named.Name() + "@" + out.Digest.String()
	default:
		out.Name = reference.TagNameOnly(named).String()
	}
	return out, nil
}

// Familiar is the short name that the Docker CLI prints: kindest/node:v1.36.4.
func (r Reference) Familiar() string {
	named, err := reference.ParseNormalizedNamed(r.Name)
	if err != nil { // cannot happen: ParseReference made Name
		return r.Name
	}
	return reference.FamiliarString(named)
}

// String is the name, with the digest if there is one.
func (r Reference) String() string {
	if r.Digest == (v1.Hash{}) || strings.Contains(r.Name, "@") {
		return r.Name
	}
	return r.Name + "@" + r.Digest.String()
}
