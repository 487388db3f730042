package source

import (
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"

	cdx "github.com/CycloneDX/cyclonedx-go"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// SBOM writes what is inside the images as CycloneDX JSON: each image with its digest, every Go module, Debian package
// and wheel once, and which image holds which. The same images give the same bytes.
func (b *Builder) SBOM(images []Image, out io.Writer) error {
	var components []cdx.Component
	var dependencies []cdx.Dependency
	known := map[string]bool{}
	for _, image := range images {
		component, err := imageComponent(image)
		if err != nil {
			return fmt.Errorf("listing %s: %w", image.Ref, err)
		}
		components = append(components, component)
		var inside []string
		for _, c := range image.Modules {
			ref := c.PURL()
			inside = append(inside, ref)
			if known[ref] {
				continue
			}
			known[ref] = true
			library, err := c.cyclonedx()
			if err != nil {
				return fmt.Errorf("listing %s of %s: %w", c.Name, image.Ref, err)
			}
			components = append(components, library)
		}
		slices.Sort(inside)
		inside = slices.Compact(inside)
		dependencies = append(dependencies, cdx.Dependency{Ref: component.BOMRef, Dependencies: &inside})
	}
	slices.SortFunc(components, func(x, y cdx.Component) int { return strings.Compare(x.BOMRef, y.BOMRef) })
	slices.SortFunc(dependencies, func(x, y cdx.Dependency) int { return strings.Compare(x.Ref, y.Ref) })
	bom := cdx.NewBOM()
	bom.Metadata = &cdx.Metadata{Component: &cdx.Component{
		BOMRef: "ambientlab", Type: cdx.ComponentTypeApplication, Name: "ambientlab source bundle",
	}}
	bom.Components, bom.Dependencies = &components, &dependencies
	encoder := cdx.NewBOMEncoder(out, cdx.BOMFileFormatJSON)
	encoder.SetPretty(true)
	if err := encoder.Encode(bom); err != nil {
		return fmt.Errorf("writing the bill of materials: %w", err)
	}
	return nil
}

func imageComponent(image Image) (cdx.Component, error) {
	digest := v1.Hash{}
	if image.Image != nil {
		var err error
		if digest, err = image.Image.Digest(); err != nil {
			return cdx.Component{}, err
		}
	}
	repository, tag := image.Ref, ""
	if i := strings.LastIndex(image.Ref, ":"); i > strings.LastIndex(image.Ref, "/") {
		repository, tag = image.Ref[:i], image.Ref[i+1:]
	}
	c := cdx.Component{
		BOMRef: image.Ref, Type: cdx.ComponentTypeContainer, Name: repository, Version: tag,
		Description: image.Substitute,
	}
	if digest != (v1.Hash{}) {
		c.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: digest.Hex}}
	}
	return c, nil
}

func (c Component) cyclonedx() (cdx.Component, error) {
	out := cdx.Component{
		BOMRef: c.PURL(), PackageURL: c.PURL(), Type: cdx.ComponentTypeLibrary, Name: c.Name, Version: c.Version,
	}
	sum := c.SHA256
	if encoded, ok := strings.CutPrefix(c.Sum, "h1:"); ok {
		// go.sum's h1 is the SHA-256 of the list of a module's files, in base 64.
		raw, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return cdx.Component{}, fmt.Errorf("checksum %q: %w", c.Sum, err)
		}
		sum = hex.EncodeToString(raw)
	}
	if sum != "" {
		out.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: sum}}
	}
	return out, nil
}
