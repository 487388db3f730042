package lab

import (
	"context"
	"errors"
	"runtime"

	"ambientlab/internal/bundle"
	"ambientlab/internal/engine"
)

// pull fetches every image from its registry, for the Docker engine's platform.
func (l *Lab) pull(ctx context.Context, refs []string, folder string) error {
	platform := bundle.Platform("linux", runtime.GOARCH)
	if info, err := l.dockerInfo(ctx); err == nil {
		platform = bundle.Platform(info.Info.OSType, info.Info.Architecture)
	} else {
		engine.Progress(ctx, "no Docker engine answers; taking %s, this machine's architecture", platform)
	}
	writer, err := bundle.Create(folder)
	if err != nil {
		return err
	}
	options := bundle.Options{Progress: func(p bundle.Progress) { engine.Progress(ctx, "%s", p) }}
	if err := bundle.Pull(ctx, refs, platform, writer, options); err != nil {
		return errors.Join(err, writer.Abort())
	}
	return writer.Commit()
}
