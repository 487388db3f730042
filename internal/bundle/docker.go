package bundle

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/moby/moby/client"

	"ambientlab/internal/problem"
)

// ImageEngine is what loading into Docker asks of the Docker API; *client.Client has it.
type ImageEngine interface {
	ImageInspect(context.Context, string, ...client.ImageInspectOption) (client.ImageInspectResult, error)
	ImageLoad(context.Context, io.Reader, ...client.ImageLoadOption) (client.ImageLoadResult, error)
}

// Platform returns the platform of an operating system and an architecture. The architecture can have Go's name (amd64)
// or the kernel's (x86_64), which is in Docker's info.
func Platform(system, architecture string) v1.Platform {
	switch architecture {
	case "x86_64":
		architecture = "amd64"
	case "aarch64":
		architecture = "arm64"
	}
	return v1.Platform{OS: system, Architecture: architecture}
}

// NodeImage is an image that LoadNodeImage loaded into Docker.
type NodeImage struct {
	// Ref is the image's name in Docker: with its tag, without the registry docker.io and without a digest. Docker
	// records the digest only of an image that it pulled, so kind would pull an image whose reference has one.
	Ref string
	// ID is Docker's ID of the image.
	ID string
	// Held says that Docker had this image before.
	Held bool
}

// NodeImageLoaded tells whether Docker has this image of the bundle. It changes nothing.
func NodeImageLoaded(ctx context.Context, docker ImageEngine, b *Bundle, ref string) (bool, error) {
	e, img, familiar, err := b.forDocker(ref)
	if err != nil {
		return false, err
	}
	_, same, err := inDocker(ctx, docker, img, e, familiar)
	return same, err
}

// forDocker finds an image of the bundle and its name in Docker.
func (b *Bundle) forDocker(ref string) (e entry, img v1.Image, familiar string, err error) {
	if e, err = b.find(ref); err != nil {
		return e, nil, "", err
	}
	if img, err = b.Image(ref); err != nil {
		return e, nil, "", err
	}
	parsed, err := ParseReference(e.Ref)
	return e, img, parsed.Familiar(), err
}

// LoadNodeImage loads an image of the bundle, the kind node image, into Docker. It writes nothing to the disk of this
// machine, and sends nothing if Docker has the image. A failure is the problem ImageLoadFailed.
func LoadNodeImage(ctx context.Context, docker ImageEngine, b *Bundle, ref string) (NodeImage, error) {
	e, img, familiar, err := b.forDocker(ref)
	if err != nil {
		return NodeImage{}, err
	}
	id, same, err := inDocker(ctx, docker, img, e, familiar)
	if err != nil || same {
		return NodeImage{Ref: familiar, ID: id, Held: same}, err
	}
	if err := streamToDocker(ctx, docker, img, familiar); err != nil {
		return NodeImage{}, problem.New(problem.ImageLoadFailed, err, "loading %s into Docker", familiar)
	}
	id, same, err = inDocker(ctx, docker, img, e, familiar)
	if err != nil {
		return NodeImage{}, err
	}
	if !same {
		return NodeImage{}, problem.New(problem.ImageLoadFailed, nil,
			"Docker loaded %s without an error, but has a different image (%s) under that name", familiar, id)
	}
	return NodeImage{Ref: familiar, ID: id}, nil
}

// inDocker tells whether Docker has this image under the name, and returns the ID of the image that Docker has.
func inDocker(ctx context.Context, docker ImageEngine, img v1.Image, e entry, ref string) (string, bool, error) {
	have, err := docker.ImageInspect(ctx, ref)
	if errdefs.IsNotFound(err) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("asking Docker for %s: %w", ref, err)
	}
	// In Docker's own image store the ID is the digest of the config, in containerd's that of the manifest.
	config := e.config().Digest
	if have.ID == config.String() || have.ID == e.Digest.String() {
		return have.ID, true, nil
	}
	// containerd's image store writes a new manifest for an image that is loaded, so its ID is another. The lab takes
	// an image with the same layers and labels for the same.
	want, err := img.ConfigFile()
	if err != nil {
		return "", false, err
	}
	var layers []string
	for _, diff := range want.RootFS.DiffIDs {
		layers = append(layers, diff.String())
	}
	same := len(layers) > 0 && slices.Equal(have.RootFS.Layers, layers) &&
		have.Config != nil && maps.Equal(have.Config.Labels, want.Config.Labels)
	return have.ID, same, nil
}

// streamToDocker sends the image as a docker-archive, the format that every engine loads: Docker 20.10 refuses an OCI
// layout.
func streamToDocker(ctx context.Context, docker ImageEngine, img v1.Image, ref string) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	archive, sink := io.Pipe()
	written := make(chan error, 1)
	go func() {
		err := tarball.Write(tag, img, sink)
		sink.CloseWithError(err)
		written <- err
	}()
	err = load(ctx, docker, archive)
	// This ends the writer if Docker has stopped reading.
	archive.CloseWithError(errStoppedReading)
	writeErr := <-written
	if errors.Is(writeErr, errStoppedReading) {
		writeErr = nil
	}
	return errors.Join(writeErr, err)
}

// errStoppedReading ends the writer of an archive that Docker no longer reads.
var errStoppedReading = errors.New("the engine stopped reading")

func load(ctx context.Context, docker ImageEngine, archive io.Reader) error {
	answer, err := docker.ImageLoad(ctx, archive, client.ImageLoadWithQuiet(true))
	if err != nil {
		return err
	}
	defer answer.Close()
	decoder := json.NewDecoder(answer)
	for {
		var message struct {
			Error string `json:"error"`
		}
		switch err := decoder.Decode(&message); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("reading Docker's answer: %w", err)
		case message.Error != "":
			return errors.New(message.Error)
		}
	}
}
