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
	ServerVersion(context.Context, client.ServerVersionOptions) (client.ServerVersionResult, error)
	ImageInspect(context.Context, string, ...client.ImageInspectOption) (client.ImageInspectResult, error)
	ImageLoad(context.Context, io.Reader, ...client.ImageLoadOption) (client.ImageLoadResult, error)
}

// EnginePlatform is the platform that the Docker engine runs containers for. The
// engine may be on another machine, or in a virtual one, so it is not this program's.
func EnginePlatform(ctx context.Context, docker ImageEngine) (v1.Platform, error) {
	version, err := docker.ServerVersion(ctx, client.ServerVersionOptions{})
	if err != nil {
		return v1.Platform{}, fmt.Errorf("asking the Docker engine for its platform: %w", err)
	}
	return Platform(version.Os, version.Arch), nil
}

// Platform makes a platform of an operating system and an architecture, which may be in
// Go's words (amd64) or in the kernel's (x86_64), as Docker's info has it.
func Platform(system, architecture string) v1.Platform {
	switch architecture {
	case "x86_64":
		architecture = "amd64"
	case "aarch64":
		architecture = "arm64"
	}
	return v1.Platform{OS: system, Architecture: architecture}
}

// NodeImage is a bundle's image as it is in Docker after LoadNodeImage.
type NodeImage struct {
	// Ref is what Docker knows the image by: with its tag, without registry docker.io
	// and without a digest. Docker records a digest only for what it pulled itself, so
	// a reference with one would make kind pull.
	Ref string
	// ID is Docker's ID of the image.
	ID string
	// Held says that Docker had this very image already.
	Held bool
}

// NodeImageLoaded tells whether Docker has this very image of the bundle; it changes nothing.
func NodeImageLoaded(ctx context.Context, docker ImageEngine, b *Bundle, ref string) (bool, error) {
	e, img, familiar, err := b.forDocker(ref)
	if err != nil {
		return false, err
	}
	_, same, err := inDocker(ctx, docker, img, e, familiar)
	return same, err
}

// forDocker finds an image of the bundle and the name that Docker knows it by.
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

// LoadNodeImage brings an image of the bundle, the kind node image, into Docker. The
// image is streamed as it is made; nothing is written to disk on this side. Where
// Docker has the image already, nothing is sent. A failure is the problem ImageLoadFailed.
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
			"Docker took %s without an error, and now has a different image (%s) under that name", familiar, id)
	}
	return NodeImage{Ref: familiar, ID: id}, nil
}

// inDocker tells whether Docker has this image under the name, and the ID of what it has.
func inDocker(ctx context.Context, docker ImageEngine, img v1.Image, e entry, ref string) (string, bool, error) {
	have, err := docker.ImageInspect(ctx, ref)
	if errdefs.IsNotFound(err) {
		return "", false, nil
	}
	if err != nil {
		return "", false, fmt.Errorf("asking Docker for %s: %w", ref, err)
	}
	// Docker's own image store names an image by its config, containerd's by its manifest.
	config := e.blobs[1].Digest
	if have.ID == config.String() || have.ID == e.Digest.String() {
		return have.ID, true, nil
	}
	// containerd's store makes a manifest of its own for what is loaded, so the ID tells
	// nothing there: the same layers and the same labels are the same image to the lab.
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

// streamToDocker sends the image as docker-archive, the one format that every engine's
// load takes: Docker 20.10 refuses an OCI layout.
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
	// Closing the reading end frees a writer that Docker stopped listening to.
	archive.CloseWithError(errStoppedReading)
	writeErr := <-written
	if errors.Is(writeErr, errStoppedReading) {
		writeErr = nil
	}
	return errors.Join(writeErr, err)
}

// errStoppedReading is what a writer sees whose reader has gone.
var errStoppedReading = errors.New("the reader has gone")

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
