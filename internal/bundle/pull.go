package bundle

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"

	"ambientlab/internal/problem"
)

// Options are the choices of a Pull. The zero value is right outside tests.
type Options struct {
	// Progress, if set, is told how the images come along, by one goroutine at a time.
	Progress func(Progress)
	// Images is how many images are fetched at once; 0 means 4.
	Images int
	// Keychain has the credentials; nil is the user's Docker configuration with its
	// credential helpers.
	Keychain authn.Keychain
	// Transport carries the requests; nil is one that heeds HTTPS_PROXY and its kin.
	Transport http.RoundTripper
	// Clock is the source of time; nil is the machine's.
	Clock Clock
}

// Progress is how far one image has come.
type Progress struct {
	// Ref is the image's reference in full.
	Ref string
	// Total is the bytes of its blobs, 0 until its manifest is known. Done is how many
	// of them are here, Fetched how many of those came over the network in this run.
	Total, Done, Fetched int64
	// Message, if not empty, says what is being waited for, or what went wrong for now.
	Message string
	// Finished says that the image is in the bundle.
	Finished bool
}

// String is the progress in one line for people.
func (p Progress) String() string {
	line := fmt.Sprintf("%s: %s of %s", p.Ref, Size(p.Done), Size(p.Total))
	switch {
	case p.Finished && p.Fetched == 0:
		return fmt.Sprintf("%s: %s, all of it here already", p.Ref, Size(p.Total))
	case p.Finished:
		return fmt.Sprintf("%s: %s, %s of it fetched", p.Ref, Size(p.Total), Size(p.Fetched))
	case p.Message != "":
		return line + "; " + p.Message
	case p.Total == 0:
		return p.Ref + ": asking the registry"
	}
	return line
}

// imagesAtOnce and blobsAtOnce suit a home's line: more would share it into pieces
// that time out, less would leave it idle between small blobs.
const (
	imagesAtOnce = 4
	blobsAtOnce  = 6
)

// Pull fetches images from their registries into a bundle that is being written, for
// one platform. Transient failures are tried again with growing waits; whole blobs that
// the folder already holds are not fetched again, partial ones from where they stop. A
// digest in a reference must be that of what the registry serves. The other images go
// on when one fails; the error holds a problem for each that failed.
func Pull(ctx context.Context, refs []string, platform v1.Platform, w *Writer, options Options) error {
	p := &puller{
		writer: w, platform: platform, options: options, clock: clockOr(options.Clock),
		blobs: make(chan struct{}, blobsAtOnce),
	}
	if p.options.Keychain == nil {
		p.options.Keychain = authn.DefaultKeychain
	}
	inner := options.Transport
	if inner == nil {
		inner = http.DefaultTransport
	}
	p.registries = &registries{
		transport: retrying{inner: inner, clock: p.clock}, keychain: p.options.Keychain, repositories: map[string]*repository{},
	}
	failures := make([]error, len(refs))
	var group errgroup.Group
	group.SetLimit(cmp.Or(options.Images, imagesAtOnce))
	for i, ref := range refs {
		group.Go(func() error {
			failures[i] = p.image(ctx, ref)
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return errors.Join(failures...)
}

// puller is one run of Pull.
type puller struct {
	writer     *Writer
	platform   v1.Platform
	options    Options
	clock      Clock
	registries *registries
	blobs      chan struct{} // one place for each blob that may be on its way

	mu sync.Mutex // guards calls of Progress
}

// image fetches one image.
func (p *puller) image(ctx context.Context, text string) error {
	if ctx.Err() != nil {
		return fmt.Errorf("pulling %s: %w", text, context.Cause(ctx))
	}
	ref, err := ParseReference(text)
	if err != nil {
		return err
	}
	t := &tracker{puller: p, state: Progress{Ref: ref.Name}}
	if err := p.pull(withNotice(ctx, t.message), ref, t); err != nil {
		return explain(ctx, ref, err)
	}
	t.update(func(s *Progress) { s.Message, s.Finished = "", true })
	return nil
}

func (p *puller) pull(ctx context.Context, ref Reference, t *tracker) error {
	repo, err := p.registries.repository(ref)
	if err != nil {
		return err
	}
	source := ref.Digest
	if source == (v1.Hash{}) {
		tag := strings.TrimPrefix(ref.Name, ref.Repository+":")
		if source, err = p.registries.resolve(ctx, repo, tag); err != nil {
			return err
		}
	}
	if e, ok := p.writer.held(ref, source, p.platform); ok {
		t.update(func(s *Progress) { s.Total, s.Done = e.Size, e.Size })
		return nil
	}
	raw, err := p.manifest(ctx, repo, source)
	if err != nil {
		return err
	}
	manifest, err := v1.ParseManifest(bytes.NewReader(raw))
	if err != nil {
		return fmt.Errorf("reading the manifest: %w", err)
	}
	blobs := append([]v1.Descriptor{manifest.Config}, manifest.Layers...)
	t.update(func(s *Progress) {
		for _, d := range blobs {
			s.Total += d.Size
		}
	})
	var group errgroup.Group
	for _, d := range blobs {
		group.Go(func() error { return p.blob(ctx, repo, d, t) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return p.finish(ctx, ref, source, raw, manifest)
}

// manifest gives the manifest of the image for the platform, out of an index if there
// is one.
func (p *puller) manifest(ctx context.Context, repo *repository, digest v1.Hash) ([]byte, error) {
	raw, err := p.document(ctx, repo, digest)
	if err != nil {
		return nil, err
	}
	several, err := isIndex(raw)
	if err != nil || !several {
		return raw, err
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("reading the index: %w", err)
	}
	var others []string
	for _, d := range index.Manifests {
		if d.Platform == nil {
			continue
		}
		if d.Platform.Satisfies(p.platform) {
			return p.document(ctx, repo, d.Digest)
		}
		others = append(others, d.Platform.String())
	}
	return nil, problem.New(problem.ImageUnknown, nil, "there is no image for %s, only for %s", p.platform, strings.Join(others, ", "))
}

// document gives a manifest by its digest: from the folder if an earlier run fetched
// it, from the registry otherwise.
func (p *puller) document(ctx context.Context, repo *repository, digest v1.Hash) ([]byte, error) {
	if raw, ok := p.writer.document(digest); ok {
		return raw, nil
	}
	raw, err := p.registries.manifest(ctx, repo, digest.String())
	if err != nil {
		return nil, err
	}
	got, size, err := v1.SHA256(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	if got != digest {
		return nil, problem.New(problem.DigestMismatch, nil, "%s serves %s when asked for %s", repo.name.RegistryStr(), got, digest)
	}
	return raw, p.writer.putBytes(ctx, v1.Descriptor{Digest: digest, Size: size}, raw)
}

// blob fetches one blob, unless it is there already or on its way for another image.
func (p *puller) blob(ctx context.Context, repo *repository, d v1.Descriptor, t *tracker) error {
	var counted int64
	came := func(here, fetched int64) {
		counted += here
		t.update(func(s *Progress) {
			s.Done, s.Fetched = s.Done+here, s.Fetched+fetched
			if fetched > 0 {
				s.Message = ""
			}
		})
	}
	err := p.writer.once(ctx, d, func() error {
		select {
		case p.blobs <- struct{}{}:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		defer func() { <-p.blobs }()
		return p.fetch(ctx, repo, d, came)
	})
	if err != nil {
		return err
	}
	if rest := d.Size - counted; rest != 0 {
		t.update(func(s *Progress) { s.Done += rest })
	}
	return nil
}

// finish takes the image into the bundle, all its blobs being there.
func (p *puller) finish(ctx context.Context, ref Reference, source v1.Hash, raw []byte, manifest *v1.Manifest) error {
	config, ok := p.writer.document(manifest.Config.Digest)
	if !ok {
		return fmt.Errorf("its config %s cannot be read", manifest.Config.Digest)
	}
	raw, manifest, err := toOCI(raw, manifest)
	if err != nil {
		return err
	}
	e, err := describe(ref, raw, config, manifest)
	if err != nil {
		return err
	}
	if have := e.descriptor.Platform; have == nil || !have.Satisfies(p.platform) {
		return problem.New(problem.ImageUnknown, nil, "there is no image for %s, only for %s", p.platform, e.Platform)
	}
	return p.writer.enter(ctx, e.withSource(source), raw, config)
}

// tracker tells of one image's progress.
type tracker struct {
	puller      *puller
	state, told Progress
}

// tellEvery is how many bytes have to come for it to be worth telling.
const tellEvery = 1 << 20

func (t *tracker) message(m string) { t.update(func(s *Progress) { s.Message = m }) }

func (t *tracker) update(change func(*Progress)) {
	t.puller.mu.Lock()
	defer t.puller.mu.Unlock()
	change(&t.state)
	news := t.state.Message != t.told.Message || t.state.Total != t.told.Total || t.state.Finished ||
		t.state.Done-t.told.Done >= tellEvery
	if news && t.puller.options.Progress != nil {
		t.told = t.state
		t.puller.options.Progress(t.state)
	}
}
