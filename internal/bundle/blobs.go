package bundle

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ambientlab/internal/atomicfile"
)

// put puts a blob in place, unless it is there already. Two callers with one blob
// share the work.
func (w *Writer) put(ctx context.Context, d v1.Descriptor, open func() (io.ReadCloser, error)) error {
	return w.once(ctx, d, func() error {
		r, err := open()
		if err != nil {
			return fmt.Errorf("reading blob %s: %w", d.Digest, err)
		}
		defer r.Close()
		return w.copyBlob(ctx, d, r)
	})
}

// putBytes puts a small blob in place.
func (w *Writer) putBytes(ctx context.Context, d v1.Descriptor, raw []byte) error {
	return w.put(ctx, d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil })
}

// document reads a small blob that the folder already holds whole.
func (w *Writer) document(h v1.Hash) ([]byte, bool) {
	info, err := os.Stat(w.path(blobName(h)))
	if err != nil || info.Size() > maxDocument {
		return nil, false
	}
	raw, err := os.ReadFile(w.path(blobName(h)))
	if err != nil {
		return nil, false
	}
	got, _, err := v1.SHA256(bytes.NewReader(raw))
	return raw, err == nil && got == h
}

// once runs write for a blob that is not there yet, one caller at a time. A caller
// whose forerunner failed tries by itself: the failure may have been its context's.
func (w *Writer) once(ctx context.Context, d v1.Descriptor, write func() error) error {
	for {
		w.mu.Lock()
		f, running := w.blobs[d.Digest]
		if !running {
			f = &flight{done: make(chan struct{})}
			w.blobs[d.Digest] = f
		}
		w.mu.Unlock()
		if !running {
			return w.fly(f, d, write)
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
		if f.err == nil {
			return nil
		}
	}
}

func (w *Writer) fly(f *flight, d v1.Descriptor, write func() error) error {
	defer close(f.done)
	have, err := w.have(d)
	if err == nil && !have {
		err = write()
	}
	if f.err = err; err != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.blobs, d.Digest)
	}
	return err
}

// have tells whether a blob lies in the folder whole. One that was altered is removed.
func (w *Writer) have(d v1.Descriptor) (bool, error) {
	if _, err := parseHash(d.Digest.String()); err != nil {
		return false, err
	}
	name := w.path(blobName(d.Digest))
	f, err := os.Open(name)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("looking for blob %s: %w", d.Digest, err)
	}
	got, size, err := v1.SHA256(f)
	if err := errors.Join(err, f.Close()); err != nil {
		return false, fmt.Errorf("checking blob %s: %w", d.Digest, err)
	}
	if got == d.Digest && size == d.Size {
		return true, nil
	}
	if err := os.Remove(name); err != nil {
		return false, fmt.Errorf("removing the altered blob %s: %w", d.Digest, err)
	}
	return false, nil
}

func (w *Writer) copyBlob(ctx context.Context, d v1.Descriptor, r io.Reader) (err error) {
	f, err := os.CreateTemp(w.path(partialDir), "put-*")
	if err != nil {
		return fmt.Errorf("writing blob %s: %w", d.Digest, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close(), os.Remove(f.Name()))
		}
	}()
	hash := sha256.New()
	size, err := io.Copy(io.MultiWriter(f, hash), untilDone{ctx, r})
	if err != nil {
		return fmt.Errorf("writing blob %s: %w", d.Digest, err)
	}
	got := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(hash.Sum(nil))}
	if got != d.Digest || size != d.Size {
		return fmt.Errorf("blob %s of %d bytes turned out to be %s of %d bytes", d.Digest, d.Size, got, size)
	}
	return atomicfile.Replace(f, w.path(blobName(d.Digest)), 0o644)
}

// untilDone is a reader that ends with its context's cause.
type untilDone struct {
	ctx context.Context
	r   io.Reader
}

func (u untilDone) Read(p []byte) (int, error) {
	if u.ctx.Err() != nil {
		return 0, context.Cause(u.ctx)
	}
	return u.r.Read(p)
}

// held takes an image over from the earlier bundle, if that has it from the same digest
// of the registry's, for the platform, and whole.
func (w *Writer) held(ref Reference, source v1.Hash, platform v1.Platform) (Entry, bool) {
	for _, e := range w.earlier.entries {
		if e.Ref != ref.Name || e.Source != source || e.descriptor.Platform == nil || !e.descriptor.Platform.Satisfies(platform) {
			continue
		}
		for _, d := range e.blobs {
			if have, err := w.have(d); err != nil || !have {
				return Entry{}, false
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.entries[e.Ref] = e
		return e.Entry, true
	}
	return Entry{}, false
}
