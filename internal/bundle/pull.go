package bundle

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"golang.org/x/sync/errgroup"

	"ambientlab/internal/problem"
)

// Options are the options of Pull. The zero value is what the lab uses.
type Options struct {
	// Progress, if set, gets the progress of the images. It is called by one goroutine at a time.
	Progress func(Progress)
	// Images is how many images are fetched at once; 0 means 4.
	Images int
	// Keychain has the credentials; nil is the user's Docker configuration with its credential helpers.
	Keychain authn.Keychain
	// Transport carries the requests; nil is http.DefaultTransport, which uses HTTPS_PROXY, HTTP_PROXY and NO_PROXY.
	Transport http.RoundTripper
	// Repository says where a repository is fetched from; nil is the repository itself.
	Repository func(repository string) (name.Repository, error)
}

// Progress is the progress of one image.
type Progress struct {
	// Ref is the full reference of the image.
	Ref string
	// Total is the bytes of its blobs, 0 until its manifest is known. Done is how many of them are in the folder,
	// Fetched how many of those came over the network in this run.
	Total, Done, Fetched int64
	// Message, if not empty, says what the image waits for.
	Message string
	// Finished says that the image is in the bundle.
	Finished bool
}

// String is the progress in one line.
func (p Progress) String() string {
	line := fmt.Sprintf("%s: %s of %s", p.Ref, Size(p.Done), Size(p.Total))
	switch {
	case p.Finished && p.Fetched == 0:
		return fmt.Sprintf("%s: %s, nothing to fetch", p.Ref, Size(p.Total))
	case p.Finished:
		return fmt.Sprintf("%s: %s, %s of it fetched", p.Ref, Size(p.Total), Size(p.Fetched))
	case p.Message != "":
		return line + "; " + p.Message
	case p.Total == 0:
		return p.Ref + ": asking the registry"
	}
	return line
}

// On a slow line, more transfers at once would time out; fewer would leave the line idle between small blobs.
const (
	imagesAtOnce = 4
	blobsAtOnce  = 6
)

// Pull fetches images for one platform from their registries. It repeats requests after transient failures with growing
// waits. It does not fetch blobs that the folder of w has, and fetches the rest of a blob of which the folder has a
// part. A digest in a reference must be that of what the registry serves. If an image fails, the others are fetched all
// the same; the error holds a problem for each image that failed.
func Pull(ctx context.Context, refs []string, platform v1.Platform, w *Writer, options Options) error {
	inner, keychain := options.Transport, options.Keychain
	if inner == nil {
		inner = http.DefaultTransport
	}
	if keychain == nil {
		keychain = authn.DefaultKeychain
	}
	client, err := remote.NewPuller(
		remote.WithTransport(resuming{retrying{inner}}), remote.WithAuthFromKeychain(keychain),
		remote.WithJobs(blobsAtOnce),
		remote.WithRetryBackoff(remote.Backoff{Steps: 1}), remote.WithRetryPredicate(func(error) bool { return false }),
	)
	if err != nil {
		return fmt.Errorf("preparing to pull: %w", err)
	}
	p := &puller{
		writer: w, platform: platform, progress: options.Progress, remote: client, repository: options.Repository,
	}
	if p.repository == nil {
		p.repository = func(repository string) (name.Repository, error) { return name.NewRepository(repository) }
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
	_ = group.Wait() // the failures are in failures
	return errors.Join(failures...)
}

// puller is one run of Pull.
type puller struct {
	writer   *Writer
	platform v1.Platform
	remote   *remote.Puller

	repository func(string) (name.Repository, error)

	mu       sync.Mutex // guards calls of progress
	progress func(Progress)
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
	if err := p.pull(context.WithValue(ctx, notifyKey{}, t.message), ref, t); err != nil {
		return explain(ctx, ref, err)
	}
	t.update(func(s *Progress) { s.Message, s.Finished = "", true })
	return nil
}

func (p *puller) pull(ctx context.Context, ref Reference, t *tracker) error {
	repo, err := p.repository(ref.Repository)
	if err != nil {
		return fmt.Errorf("reading the repository %q: %w", ref.Repository, err)
	}
	source := ref.Digest
	if source == (v1.Hash{}) {
		if source, err = p.resolve(ctx, repo.Tag(strings.TrimPrefix(ref.Name, ref.Repository+":"))); err != nil {
			return err
		}
	}
	if e, ok := p.writer.takeOver(ref, source, p.platform); ok {
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
	if manifest.MediaType != "" && !manifest.MediaType.IsImage() {
		return problem.New(problem.ImageUnknown, nil, "its manifest has the type %s, which is not that of an image",
			manifest.MediaType)
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
	config, ok := p.writer.document(manifest.Config.Digest)
	if !ok {
		return fmt.Errorf("its config %s cannot be read", manifest.Config.Digest)
	}
	e, raw, err := describe(ref, raw, config)
	if err != nil {
		return err
	}
	if have := e.descriptor.Platform; have == nil || !have.Satisfies(p.platform) {
		return problem.New(problem.ImageUnknown, nil, "there is no image for %s, only for %s", p.platform, e.Platform)
	}
	return p.writer.enter(ctx, e.withSource(source), raw, config)
}

// resolve asks for the digest of a tag. The request is a HEAD, which Docker Hub does not count towards its pull limit.
func (p *puller) resolve(ctx context.Context, tag name.Tag) (v1.Hash, error) {
	head, err := p.remote.Head(ctx, tag)
	if err == nil {
		return head.Digest, nil
	}
	if failedRequest(err) {
		return v1.Hash{}, err
	}
	// Registries need not send the headers that Head reads (distribution-spec, "Checking if content exists in the
	// registry").
	got, err := p.remote.Get(ctx, tag)
	if err != nil {
		return v1.Hash{}, err
	}
	return got.Digest, nil
}

// failedRequest tells the failure of a request from an answer that remote does not accept.
func failedRequest(err error) bool {
	var (
		status  *transport.Error
		request *url.Error
	)
	return errors.As(err, &status) || errors.As(err, &request)
}

// manifest returns the manifest of the image for the platform, which an index can name.
func (p *puller) manifest(ctx context.Context, repo name.Repository, digest v1.Hash) ([]byte, error) {
	raw, err := p.document(ctx, repo, digest)
	if err != nil {
		return nil, err
	}
	index, err := v1.ParseIndexManifest(bytes.NewReader(raw))
	if err != nil {
		return nil, fmt.Errorf("reading the manifest: %w", err)
	}
	if !index.MediaType.IsIndex() && len(index.Manifests) == 0 {
		return raw, nil
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
	return nil, problem.New(problem.ImageUnknown, nil, "there is no image for %s, only for %s", p.platform,
		strings.Join(others, ", "))
}

// document returns a manifest by its digest, from the folder or from the registry.
func (p *puller) document(ctx context.Context, repo name.Repository, digest v1.Hash) ([]byte, error) {
	if raw, ok := p.writer.document(digest); ok {
		return raw, nil
	}
	got, err := p.remote.Get(ctx, repo.Digest(digest.String()))
	if err != nil && ctx.Err() == nil && !failedRequest(err) {
		return nil, problem.New(problem.DigestMismatch, err, "%s serves something else when asked for %s",
			repo.RegistryStr(), digest)
	}
	if err != nil {
		return nil, err
	}
	return got.Manifest,
		p.writer.putBytes(ctx, v1.Descriptor{Digest: digest, Size: int64(len(got.Manifest))}, got.Manifest)
}

// blob fetches one blob, unless the folder has it or another image is fetching it.
func (p *puller) blob(ctx context.Context, repo name.Repository, d v1.Descriptor, t *tracker) error {
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
	if err := p.writer.once(d, func() error { return p.fetch(ctx, repo, d, came) }); err != nil {
		return err
	}
	if rest := d.Size - counted; rest != 0 {
		t.update(func(s *Progress) { s.Done += rest })
	}
	return nil
}

// tracker reports the progress of one image.
type tracker struct {
	puller      *puller
	state, told Progress
}

// Between two reports there are tellEvery bytes, and of a large image one tellParts of all: each report is a line in a
// log.
const (
	tellEvery = 1 << 20
	tellParts = 20
)

func (t *tracker) message(m string) { t.update(func(s *Progress) { s.Message = m }) }

func (t *tracker) update(change func(*Progress)) {
	t.puller.mu.Lock()
	defer t.puller.mu.Unlock()
	change(&t.state)
	news := t.state.Message != t.told.Message || t.state.Total != t.told.Total || t.state.Finished ||
		t.state.Done-t.told.Done >= max(tellEvery, t.state.Total/tellParts)
	if news && t.puller.progress != nil {
		t.told = t.state
		t.puller.progress(t.state)
	}
}
