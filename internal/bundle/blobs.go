package bundle

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ambientlab/internal/atomicfile"
)

// put writes a blob, unless the folder has it.
func (w *Writer) put(ctx context.Context, d v1.Descriptor, open func() (io.ReadCloser, error)) error {
	return w.once(d, func() error {
		r, err := open()
		if err != nil {
			return fmt.Errorf("reading blob %s: %w", d.Digest, err)
		}
		defer r.Close()
		return w.copyBlob(ctx, d, r)
	})
}

func (w *Writer) putBytes(ctx context.Context, d v1.Descriptor, raw []byte) error {
	return w.put(ctx, d, func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(raw)), nil })
}

// once calls write for a blob that the folder does not have, one caller at a time.
func (w *Writer) once(d v1.Descriptor, write func() error) error {
	for {
		mine := false
		_, err, _ := w.writing.Do(d.Digest.String(), func() (any, error) {
			mine = true
			have, err := w.have(d)
			if err != nil || have {
				return nil, err
			}
			if err := write(); err != nil {
				return nil, err
			}
			w.note(d)
			return nil, nil
		})
		// The write of another caller can fail for a reason that does not affect this one, such as its registry.
		if err == nil || mine {
			return err
		}
	}
}

func (w *Writer) note(d v1.Descriptor) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.whole[d.Digest] = true
}

// have tells whether the folder has a blob complete. It removes a blob whose content is not what its digest says.
func (w *Writer) have(d v1.Descriptor) (bool, error) {
	w.mu.Lock()
	whole := w.whole[d.Digest]
	w.mu.Unlock()
	if whole {
		return true, nil
	}
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
		w.note(d)
		return true, nil
	}
	if err := os.Remove(name); err != nil {
		return false, fmt.Errorf("removing the altered blob %s: %w", d.Digest, err)
	}
	return false, nil
}

// document reads a small blob that the folder has complete.
func (w *Writer) document(h v1.Hash) ([]byte, bool) {
	raw, err := readDocument(os.DirFS(w.dir), blobName(h))
	if err != nil {
		return nil, false
	}
	got, _, err := v1.SHA256(bytes.NewReader(raw))
	return raw, err == nil && got == h
}

func (w *Writer) copyBlob(ctx context.Context, d v1.Descriptor, r io.Reader) error {
	f, err := os.CreateTemp(w.path(partialDir), "put-*")
	if err != nil {
		return fmt.Errorf("writing blob %s: %w", d.Digest, err)
	}
	got, size, err := v1.SHA256(io.TeeReader(untilDone{ctx, r}, f))
	if err == nil && (got != d.Digest || size != d.Size) {
		err = fmt.Errorf("its %d bytes are not what was announced: %d bytes with the digest %s", d.Size, size, got)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("writing blob %s: %w", d.Digest, err), f.Close(), os.Remove(f.Name()))
	}
	return atomicfile.Replace(f, w.path(blobName(d.Digest)), 0o644)
}

// untilDone is a reader that ends with the cause of its context.
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
