package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"

	"ambientlab/internal/bundle"
	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/internal/source"
	"ambientlab/internal/source/nodeimage"
)

// Where a bundle's images come from.
const (
	fromRegistry = "registry"
	fromSource   = "source"
)

// BundleCreate is the target that makes or completes the bundle in folder to.
func BundleCreate(from, to string) Target {
	return func(ctx context.Context, env *session.Env) error {
		if !slices.Contains([]string{fromRegistry, fromSource}, from) {
			return problem.New(problem.SettingInvalid, nil, "-from=%q is not accepted; accepted: registry or source",
				from)
		}
		if to == "" {
			return problem.New(problem.SettingInvalid, nil, "-to is missing; accepted: a folder to write the bundle to")
		}
		folder, err := filepath.Abs(to)
		if err != nil {
			return fmt.Errorf("finding folder %s: %w", to, err)
		}
		pods, nodes, err := bundleImages(ctx, env)
		if err != nil {
			return err
		}
		step := engine.Step{ID: "bundle", Title: "Bundle " + folder}
		step.Do = func(ctx context.Context) error { return pull(ctx, env, append(pods, nodes...), folder) }
		if from == fromSource {
			step.Do = func(ctx context.Context) error { return build(ctx, env, pods, folder) }
		}
		if _, err := env.ApplyWithoutLab(ctx,
			engine.Plan{Name: "bundle", Title: "Images from " + from, Steps: []engine.Step{step}}); err != nil {
			return err
		}
		return BundleShow(folder)(ctx, env)
	}
}

// bundleImages lists the images of a bundle, which is for a cluster of any provider.
func bundleImages(ctx context.Context, env *session.Env) (pods, nodes []string, err error) {
	config := session.Merge(env.Settings, cluster.Traits{LoadBalancer: true}, session.Found{}, session.AsAsked)
	asIs := func(list objects) objects { return list }
	if pods, err = podImages(ctx, env, config, session.Substitutes{}, newCharts(env, nil), asIs); err != nil {
		return nil, nil, err
	}
	nodes, err = env.Settings.NodeImages(session.DefaultNodeImage)
	return pods, nodes, err
}

// pull fetches every image from its registry, for the Docker engine's platform.
func pull(ctx context.Context, env *session.Env, refs []string, folder string) error {
	platform := bundle.Platform("linux", runtime.GOARCH)
	if info, err := env.DockerInfo(ctx); err == nil {
		platform = bundle.Platform(info.Info.OSType, info.Info.Architecture)
	} else {
		engine.Progress(ctx, "no Docker engine answers; taking %s, this machine's architecture", platform)
	}
	writer, err := bundle.Create(folder)
	if err != nil {
		return err
	}
	options := bundle.Options{}
	if mirror := env.Mirror(); mirror != nil {
		options = mirror.Options()
	}
	options.Progress = func(p bundle.Progress) { engine.Progress(ctx, "%s", p) }
	if err := bundle.Pull(ctx, refs, platform, writer, options); err != nil {
		return errors.Join(err, writer.Abort())
	}
	return writer.Commit()
}

// build makes every image that can be made from Go modules and Debian packages, and names those that cannot.
func build(ctx context.Context, env *session.Env, refs []string, folder string) error {
	progress := func(component, message string) { engine.Progress(ctx, "%s: %s", component, message) }
	builder, err := source.New(source.Options{Progress: progress})
	if err != nil {
		return err
	}
	writer, err := bundle.Create(folder)
	if err != nil {
		return err
	}
	if err := buildInto(ctx, env, builder, writer, refs, progress); err != nil {
		return errors.Join(err, writer.Abort())
	}
	return writer.Commit()
}

func buildInto(
	ctx context.Context, env *session.Env, builder *source.Builder, writer *bundle.Writer, refs []string,
	progress func(component, message string),
) error {
	var built []source.Image
	for _, ref := range refs {
		image, err := builder.Image(ctx, ref)
		if errors.Is(err, source.ErrUnknownImage) {
			env.Tell("not in this bundle: %s cannot be built from Go modules and Debian packages; "+
				"leave it out with SM_ADDONS", ref)
			continue
		}
		if err != nil {
			return fmt.Errorf("building %s: %w", ref, err)
		}
		built = append(built, image)
	}
	node, err := nodeimage.Build(ctx,
		nodeimage.Options{
			Binaries: builder, CacheDir: filepath.Join(filepath.Dir(builder.CacheDir), "nodeimage"),
			Progress: progress,
		})
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
		image.Modules = append(image.Modules,
			source.Component{Kind: source.KindDebian, Name: p.Name, Version: p.Version, Arch: p.Architecture})
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

// BundleShow is the target that lists what a bundle holds, on stdout.
func BundleShow(path string) Target {
	return func(_ context.Context, env *session.Env) error {
		opened, err := bundle.Open(path)
		if err != nil {
			return err
		}
		defer opened.Close()
		if err := opened.WriteTable(env.Out); err != nil {
			return err
		}
		env.Next("SM_BUNDLE=%s mage sm:install", path)
		return nil
	}
}

// BundleVerify is the target that computes the digest of every blob again.
func BundleVerify(path string) Target {
	return func(ctx context.Context, env *session.Env) error {
		opened, err := bundle.Open(path)
		if err != nil {
			return err
		}
		defer opened.Close()
		if err := opened.Verify(ctx); err != nil {
			return err
		}
		if _, err = fmt.Fprintf(env.Out, "%s: every blob has the digest of its name, %d images\n", path,
			len(opened.Images())); err != nil {
			return fmt.Errorf("printing the verdict: %w", err)
		}
		env.Next("SM_BUNDLE=%s mage sm:install", path)
		return nil
	}
}
