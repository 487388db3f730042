package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"ambientlab/internal/bundle"
	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
	"ambientlab/internal/source"
	"ambientlab/internal/source/nodeimage"
)

// Where a bundle's images come from.
const (
	fromRegistry = "registry"
	fromSource   = "source"
)

// BundleCreate makes or completes the bundle in folder to.
func (l *Lab) BundleCreate(ctx context.Context, from, to string) error {
	if !slices.Contains([]string{fromRegistry, fromSource}, from) {
		return problem.New(problem.SettingInvalid, nil, "-from=%q is not accepted; accepted: registry or source", from)
	}
	if to == "" {
		return problem.New(problem.SettingInvalid, nil, "-to is missing; accepted: a folder to write the bundle to")
	}
	folder, err := filepath.Abs(to)
	if err != nil {
		return fmt.Errorf("finding folder %s: %w", to, err)
	}
	pods, err := l.podImages(ctx)
	if err != nil {
		return err
	}
	nodes, err := l.nodeImages(DefaultNodeImage)
	if err != nil {
		return err
	}
	step := engine.Step{ID: "bundle", Title: "Bundle " + folder}
	step.Do = func(ctx context.Context) error { return l.pull(ctx, append(pods, nodes...), folder) }
	if from == fromSource {
		step.Do = func(ctx context.Context) error { return l.build(ctx, pods, folder) }
	}
	if _, err := l.apply(ctx, engine.Plan{Name: "bundle", Title: "Images from " + from, Steps: []engine.Step{step}}); err != nil {
		return err
	}
	return l.BundleShow(ctx, folder)
}

// build makes every image that can be made from Go modules and Debian packages, and names those that cannot.
func (l *Lab) build(ctx context.Context, refs []string, folder string) error {
	progress := func(component, message string) { engine.Progress(ctx, "%s: %s", component, message) }
	builder, err := source.New(source.Options{Progress: progress})
	if err != nil {
		return err
	}
	writer, err := bundle.Create(folder)
	if err != nil {
		return err
	}
	if err := l.buildInto(ctx, builder, writer, refs, progress); err != nil {
		return errors.Join(err, writer.Abort())
	}
	return writer.Commit()
}

func (l *Lab) buildInto(ctx context.Context, builder *source.Builder, writer *bundle.Writer, refs []string, progress func(component, message string)) error {
	var built []source.Image
	for _, ref := range refs {
		image, err := builder.Image(ctx, ref)
		if errors.Is(err, source.ErrUnknownImage) {
			l.tell("not in this bundle: %s cannot be built from Go modules and Debian packages; leave it out with SM_ADDONS", ref)
			continue
		}
		if err != nil {
			return fmt.Errorf("building %s: %w", ref, err)
		}
		built = append(built, image)
	}
	node, err := nodeimage.Build(ctx, nodeimage.Options{Binaries: builder, CacheDir: filepath.Join(filepath.Dir(builder.CacheDir), "nodeimage"), Progress: progress})
	if err != nil {
		return fmt.Errorf("building the node image: %w", err)
	}
	asSource, err := nodeSource(node)
	if err != nil {
		return err
	}
	built = append(built, asSource)
	for _, image := range built {
		progress(image.Ref, "into the bundle")
		if err := writer.Add(ctx, image.Ref, image.Image, image.Substitute); err != nil {
			return err
		}
	}
	var sbom bytes.Buffer
	if err := builder.SBOM(built, &sbom); err != nil {
		return fmt.Errorf("listing what is inside: %w", err)
	}
	return writer.AddFile("sbom.cdx.json", sbom.Bytes())
}

// nodeSource gives the node image the form of the others, with what is inside for the bill of materials.
func nodeSource(node nodeimage.Image) (source.Image, error) {
	image := source.Image{Ref: node.Ref, Image: node.Image, Substitute: nodeimage.Substitute}
	for _, p := range node.Packages {
		image.Modules = append(image.Modules, source.Component{Kind: source.KindDebian, Name: p.Name, Version: p.Version, Arch: p.Architecture})
	}
	for _, name := range slices.Sorted(maps.Keys(node.Programs)) {
		modules, err := source.GoComponents(name, node.Programs[name])
		if err != nil {
			return image, fmt.Errorf("listing what is inside %s: %w", name, err)
		}
		image.Modules = append(image.Modules, modules...)
	}
	return image, nil
}

// BundleShow lists what a bundle holds, on stdout.
func (l *Lab) BundleShow(_ context.Context, path string) error {
	opened, err := bundle.Open(path)
	if err != nil {
		return err
	}
	defer opened.Close()
	if err := opened.WriteTable(l.out); err != nil {
		return err
	}
	l.thenType("SM_BUNDLE=%s mage sm:install", path)
	return nil
}

// BundleVerify rehashes every blob.
func (l *Lab) BundleVerify(ctx context.Context, path string) error {
	opened, err := bundle.Open(path)
	if err != nil {
		return err
	}
	defer opened.Close()
	if err := opened.Verify(ctx); err != nil {
		return err
	}
	if _, err = fmt.Fprintf(l.out, "%s: every blob is what its digest says, %d images\n", path, len(opened.Images())); err != nil {
		return fmt.Errorf("printing the verdict: %w", err)
	}
	l.thenType("SM_BUNDLE=%s mage sm:install", path)
	return nil
}
