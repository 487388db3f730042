package bundle

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// registries gives repositories of registries, each authenticated once.
type registries struct {
	transport http.RoundTripper
	keychain  authn.Keychain

	mu           sync.Mutex
	repositories map[string]*repository
}

// repository is one repository, read over the distribution API (OCI distribution-spec
// v1.1). Requests are made here and not by go-containerregistry's remote package, which
// can neither take up a blob in its middle nor wait by a clock of ours.
type repository struct {
	name   name.Repository
	mu     sync.Mutex
	client *http.Client
}

func (r *registries) repository(ref Reference) (*repository, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if found, ok := r.repositories[ref.Repository]; ok {
		return found, nil
	}
	parsed, err := name.NewRepository(ref.Repository)
	if err != nil {
		return nil, fmt.Errorf("reading the repository %q: %w", ref.Repository, err)
	}
	out := &repository{name: parsed}
	r.repositories[ref.Repository] = out
	return out, nil
}

// login makes the client that authenticates, on first use; a failure is not kept.
func (r *registries) login(ctx context.Context, repo *repository) (*http.Client, error) {
	repo.mu.Lock()
	defer repo.mu.Unlock()
	if repo.client != nil {
		return repo.client, nil
	}
	credentials, err := authn.Resolve(ctx, r.keychain, repo.name)
	if err != nil {
		return nil, fmt.Errorf("reading the credentials for %s: %w", repo.name.RegistryStr(), err)
	}
	scopes := []string{repo.name.Scope(transport.PullScope)}
	authenticated, err := transport.NewWithContext(ctx, repo.name.Registry, credentials, r.transport, scopes)
	if err != nil {
		return nil, err
	}
	repo.client = &http.Client{Transport: authenticated}
	return repo.client, nil
}

// acceptManifests are the types of manifest that can be in a bundle, or lead to one.
func acceptManifests() string {
	return strings.Join([]string{
		string(types.OCIImageIndex), string(types.OCIManifestSchema1),
		string(types.DockerManifestList), string(types.DockerManifestSchema2),
	}, ", ")
}

// do makes a request to /v2/REPOSITORY/path and checks the answer's status.
func (r *registries) do(ctx context.Context, repo *repository, method, path string, header http.Header, accept ...int) (*http.Response, error) {
	client, err := r.login(ctx, repo)
	if err != nil {
		return nil, err
	}
	url := fmt.Sprintf("%s://%s/v2/%s/%s", repo.name.Scheme(), repo.name.RegistryStr(), repo.name.RepositoryStr(), path)
	request, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	request.Header = header
	answer, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	if err := transport.CheckError(answer, accept...); err != nil {
		return nil, errors.Join(&statusError{err: err, answer: answer}, answer.Body.Close())
	}
	return answer, nil
}

// statusError is an answer with a status that was not hoped for.
type statusError struct {
	err    error
	answer *http.Response
}

func (e *statusError) Error() string { return e.err.Error() }
func (e *statusError) Unwrap() error { return e.err }

// resolve asks for the digest of a tag. Unlike reading the manifest this does not count
// towards Docker Hub's pull limit.
func (r *registries) resolve(ctx context.Context, repo *repository, tag string) (v1.Hash, error) {
	answer, err := r.do(ctx, repo, http.MethodHead, "manifests/"+tag, http.Header{"Accept": {acceptManifests()}}, http.StatusOK)
	if err != nil {
		return v1.Hash{}, err
	}
	if err := answer.Body.Close(); err != nil {
		return v1.Hash{}, err
	}
	if digest, err := parseHash(answer.Header.Get("Docker-Content-Digest")); err == nil {
		return digest, nil
	}
	// The header is optional (distribution-spec, "Checking if content exists").
	raw, err := r.manifest(ctx, repo, tag)
	if err != nil {
		return v1.Hash{}, err
	}
	digest, _, err := v1.SHA256(bytes.NewReader(raw))
	return digest, err
}

// manifest reads a manifest by tag or digest.
func (r *registries) manifest(ctx context.Context, repo *repository, reference string) ([]byte, error) {
	answer, err := r.do(ctx, repo, http.MethodGet, "manifests/"+reference, http.Header{"Accept": {acceptManifests()}}, http.StatusOK)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(answer.Body, maxDocument+1))
	if err := errors.Join(err, answer.Body.Close()); err != nil {
		return nil, err
	}
	if len(raw) > maxDocument {
		return nil, fmt.Errorf("the manifest is larger than %d bytes", maxDocument)
	}
	return raw, nil
}

// blob asks for a blob from an offset on. from is where the answer really starts: a
// registry may ignore the wish and start at 0.
func (r *registries) blob(ctx context.Context, repo *repository, d v1.Descriptor, offset int64) (body io.ReadCloser, from int64, err error) {
	header := http.Header{}
	if offset > 0 {
		header.Set("Range", fmt.Sprintf("bytes=%d-%d", offset, d.Size-1))
	}
	answer, err := r.do(ctx, repo, http.MethodGet, "blobs/"+d.Digest.String(), header,
		http.StatusOK, http.StatusPartialContent, http.StatusRequestedRangeNotSatisfiable)
	if err != nil {
		return nil, 0, err
	}
	var start int64
	switch answer.StatusCode {
	case http.StatusOK:
		return answer.Body, 0, nil
	case http.StatusPartialContent:
		if _, err := fmt.Sscanf(answer.Header.Get("Content-Range"), "bytes %d-", &start); err == nil && start == offset {
			return answer.Body, offset, nil
		}
	}
	if err := answer.Body.Close(); err != nil {
		return nil, 0, err
	}
	if offset == 0 {
		return nil, 0, fmt.Errorf("%s was answered with a range that was not asked for", d.Digest)
	}
	return r.blob(ctx, repo, d, 0)
}

// isIndex tells an index of several platforms from one image's manifest.
func isIndex(raw []byte) (bool, error) {
	var document struct {
		MediaType types.MediaType   `json:"mediaType"`
		Manifests []json.RawMessage `json:"manifests"`
		Config    json.RawMessage   `json:"config"`
	}
	if err := json.Unmarshal(raw, &document); err != nil {
		return false, fmt.Errorf("the manifest is not JSON: %w", err)
	}
	switch {
	case document.MediaType.IsIndex(), document.MediaType == "" && document.Manifests != nil:
		return true, nil
	case document.MediaType.IsImage(), document.MediaType == "" && document.Config != nil:
		return false, nil
	}
	return false, fmt.Errorf("a manifest of type %q is no image", document.MediaType)
}
