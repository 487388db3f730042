package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote"

	"ambientlab/internal/atomicfile"
	"ambientlab/internal/problem"
)

// stall is how long a registry can send nothing before the connection counts as cut.
const stall = time.Minute

var errStalled = errors.New("the registry stopped sending")

// download is one blob that is being fetched. Requests for the blob have it in their context.
type download struct {
	want v1.Descriptor
	// file holds the first bytes of the blob, have of them. It stays after a failure, for the next attempt and the next
	// run.
	file *os.File
	have int64
	// came gets the bytes that were added to the file, negative if they were removed, and how many of them the registry
	// sent.
	came func(here, fetched int64)
	// cancel ends the attempt that is made now.
	cancel context.CancelCauseFunc
}

// fetch writes a blob of a repository into the bundle's folder. After a cut connection it asks for the rest of the
// blob, until too many attempts in a row bring nothing.
func (p *puller) fetch(
	ctx context.Context, repo name.Repository, want v1.Descriptor, came func(here, fetched int64),
) error {
	file, err := os.OpenFile(p.writer.path(partialDir+"/"+want.Digest.Hex), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return &localError{err}
	}
	d := &download{want: want, file: file, came: came}
	if err := d.complete(ctx, p, repo); err != nil {
		return errors.Join(err, file.Close())
	}
	if err := atomicfile.Replace(file, p.writer.path(blobName(want.Digest)), 0o644); err != nil {
		return &localError{err}
	}
	return nil
}

func (d *download) complete(ctx context.Context, p *puller, repo name.Repository) error {
	size, err := d.file.Seek(0, io.SeekEnd)
	if err != nil {
		return &localError{err}
	}
	d.have = size
	d.came(d.have, 0)
	if d.have > d.want.Size {
		if err := d.restart(); err != nil {
			return err
		}
	}
	if d.have > 0 && d.have < d.want.Size {
		notify(ctx, fmt.Sprintf("continuing at byte %d of %d of %s", d.have, d.want.Size, d.want.Digest))
	}
	altered := false
	for fruitless := 1; ; fruitless++ {
		before := d.have
		err := d.attempt(ctx, p.remote, repo.Digest(d.want.Digest.String()))
		var cut *cutError
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &cut):
			if d.have > before {
				fruitless = 1
			}
		case !errors.Is(err, errContent):
			return err
		case altered:
			return problem.New(problem.DigestMismatch, nil, "%s serves something else as blob %s", repo.RegistryStr(),
				d.want.Digest)
		default:
			// A broken proxy can have altered the blob on the way: it is fetched once more.
			altered = true
			if err := d.restart(); err != nil {
				return err
			}
		}
		if fruitless == maxAttempts {
			return err
		}
		wait := backoff(fruitless)
		notify(ctx, fmt.Sprintf("%v; trying again in %s", err, wait.Round(100*time.Millisecond)))
		if err := sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// errContent says that a blob arrived, but its content is not what its digest says.
var errContent = errors.New("the blob was altered on its way")

// attempt reads the blob to its end, which writes what was missing into the file.
func (d *download) attempt(ctx context.Context, client *remote.Puller, ref name.Digest) error {
	ctx, d.cancel = context.WithCancelCause(context.WithValue(ctx, downloadKey{}, d))
	defer d.cancel(nil)
	layer, err := client.Layer(ctx, ref)
	if err != nil {
		return err
	}
	body, err := layer.Compressed()
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, body)
	err = errors.Join(err, body.Close())
	var (
		cut   *cutError
		local *localError
	)
	if err != nil && !errors.As(err, &cut) && !errors.As(err, &local) {
		return fmt.Errorf("%w: %w", errContent, err)
	}
	return err
}

// restart removes what was fetched.
func (d *download) restart() error {
	if err := d.file.Truncate(0); err != nil {
		return &localError{err}
	}
	d.came(-d.have, 0)
	d.have = 0
	return nil
}

// localError is a failure of this machine, such as a full disk. Another request would not help.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// cutError is a connection that ended before the blob did.
type cutError struct{ err error }

func (e *cutError) Error() string { return e.err.Error() }
func (e *cutError) Unwrap() error { return e.err }

// downloadKey is the key of the *download in a context.
type downloadKey struct{}

// resuming is a transport that asks the registry only for the part of a blob that is missing (RFC 9110, section 14.2)
// and puts what is in the download's file before it. So remote reads every blob from its first byte, and checks its
// digest.
type resuming struct{ inner http.RoundTripper }

// RoundTrip sends requests that are not for a blob that is being downloaded as they are.
func (t resuming) RoundTrip(request *http.Request) (*http.Response, error) {
	d, ok := request.Context().Value(downloadKey{}).(*download)
	if !ok || request.Method != http.MethodGet ||
		!strings.HasSuffix(original(request).URL.Path, "/blobs/"+d.want.Digest.String()) {
		return t.inner.RoundTrip(request)
	}
	cancel := d.cancel // that of this attempt
	body := &blobBody{
		d: d, ctx: request.Context(), upstream: http.NoBody,
		watch: time.AfterFunc(stall, func() { cancel(errStalled) }),
	}
	body.watch.Stop() // until the first Read
	if d.have < d.want.Size {
		answer, err := d.ask(t.inner, request)
		if err != nil || answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusPartialContent {
			return answer, err
		}
		body.upstream = answer.Body
	}
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, ContentLength: d.want.Size, Body: body, Request: request,
	}, nil
}

// ask sends the request for the missing part. A registry that does not serve the part is asked for the whole blob.
func (d *download) ask(inner http.RoundTripper, request *http.Request) (*http.Response, error) {
	part := request.Clone(request.Context())
	if d.have > 0 {
		part.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", d.have, d.want.Size-1))
	}
	answer, err := inner.RoundTrip(part)
	if err != nil || d.have == 0 {
		return answer, err
	}
	switch answer.StatusCode {
	case http.StatusPartialContent:
		var start int64
		if _, err := fmt.Sscanf(answer.Header.Get("Content-Range"), "bytes %d-", &start); err == nil &&
			start == d.have {
			return answer, nil
		}
	case http.StatusRequestedRangeNotSatisfiable:
	case http.StatusOK:
		if err := d.restart(); err != nil {
			return nil, errors.Join(err, answer.Body.Close())
		}
		return answer, nil
	default:
		return answer, nil
	}
	if err := errors.Join(answer.Body.Close(), d.restart()); err != nil {
		return nil, err
	}
	return inner.RoundTrip(request)
}

// blobBody is a blob from its first byte: what the file of its download holds, then what the registry sends.
type blobBody struct {
	d        *download
	at       int64
	upstream io.ReadCloser
	ctx      context.Context
	watch    *time.Timer // runs while the registry is waited for
}

// Read writes what the registry sends into the file.
func (b *blobBody) Read(p []byte) (int, error) {
	if b.at < b.d.have {
		n, err := b.d.file.ReadAt(p[:min(int64(len(p)), b.d.have-b.at)], b.at)
		b.at += int64(n)
		if err != nil {
			return n, &localError{err}
		}
		return n, nil
	}
	b.watch.Reset(stall)
	n, err := b.upstream.Read(p)
	b.watch.Stop()
	if n > 0 {
		if _, err := b.d.file.WriteAt(p[:n], b.at); err != nil {
			return 0, &localError{err}
		}
		b.at += int64(n)
		b.d.have = b.at
		b.d.came(int64(n), int64(n))
	}
	switch {
	case err == nil, errors.Is(err, io.EOF) && b.at >= b.d.want.Size:
		return n, err
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	case context.Cause(b.ctx) != nil:
		err = context.Cause(b.ctx)
	}
	return n, &cutError{fmt.Errorf("blob %s was cut at byte %d of %d: %w", b.d.want.Digest, b.at, b.d.want.Size, err)}
}

// Close closes what the registry sends.
func (b *blobBody) Close() error { return b.upstream.Close() }
