package bundle

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ambientlab/internal/atomicfile"
	"ambientlab/internal/problem"
)

// stall is how long a registry may send nothing before the connection counts as cut.
const stall = time.Minute

// errStalled ends a connection over which nothing comes any more.
var errStalled = errors.New("the registry stopped sending")

// download is one blob on its way. What has come is in a file that outlives a failure
// and the whole run, so that the next try goes on from there.
type download struct {
	puller *puller
	repo   *repository
	want   v1.Descriptor
	// came is told of bytes that are here, negative where some were thrown away, and how
	// many of them came over the network just now.
	came func(here, fetched int64)

	file *os.File
	hash hash.Hash
	have int64
}

// fetch brings a blob from a repository into the bundle's folder.
func (p *puller) fetch(ctx context.Context, repo *repository, want v1.Descriptor, came func(here, fetched int64)) (err error) {
	d := &download{puller: p, repo: repo, want: want, came: came, hash: sha256.New()}
	d.file, err = os.OpenFile(p.writer.path(partialDir+"/"+want.Digest.Hex), os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return fmt.Errorf("writing blob %s: %w", want.Digest, err)
	}
	settled := false
	defer func() {
		if !settled {
			err = errors.Join(err, d.file.Close())
		}
	}()
	if d.have, err = io.Copy(d.hash, d.file); err != nil {
		return fmt.Errorf("reading what has come of blob %s: %w", want.Digest, err)
	}
	d.came(d.have, 0)
	if d.have > 0 && d.have < want.Size {
		notice(ctx, fmt.Sprintf("going on at byte %d of %d of %s", d.have, want.Size, want.Digest))
	}
	if err := d.complete(ctx); err != nil {
		return err
	}
	settled = true
	return atomicfile.Replace(d.file, p.writer.path(blobName(want.Digest)), 0o644)
}

// complete tries until the blob is whole and is what its digest says. It gives up after
// too many tries in a row that brought nothing.
func (d *download) complete(ctx context.Context) error {
	wrong := 0
	for fruitless := 1; ; fruitless++ {
		before := d.have
		err := d.try(ctx)
		if err == nil && d.matches() {
			return nil
		}
		if err == nil {
			// A broken proxy may have put in something of its own; once is forgiven.
			if wrong++; wrong > 1 {
				return problem.New(problem.DigestMismatch, nil, "%s serves something else as blob %s", d.repo.name.RegistryStr(), d.want.Digest)
			}
			err = fmt.Errorf("blob %s came altered", d.want.Digest)
			if err := d.restart(); err != nil {
				return err
			}
			before = d.have
		}
		if ctx.Err() != nil || final(err) {
			return err
		}
		if d.have > before {
			fruitless = 1
		}
		if fruitless == maxAttempts {
			return err
		}
		wait := backoff(fruitless)
		notice(ctx, fmt.Sprintf("%v; trying again in %s", err, wait.Round(100*time.Millisecond)))
		if err := d.puller.clock.Sleep(ctx, wait); err != nil {
			return err
		}
	}
}

// try asks for what is missing and writes down what comes. A nil error means that as
// many bytes have come as the blob has, or more.
func (d *download) try(ctx context.Context) error {
	if d.have >= d.want.Size {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	body, from, err := d.puller.registries.blob(ctx, d.repo, d.want, d.have)
	if err != nil {
		return err
	}
	defer body.Close()
	if from != d.have {
		if err := d.restart(); err != nil {
			return err
		}
	}
	watch := time.AfterFunc(stall, func() { cancel(errStalled) })
	defer watch.Stop()
	piece := make([]byte, 64<<10)
	for d.have <= d.want.Size {
		n, err := body.Read(piece)
		watch.Reset(stall)
		if n > 0 {
			if _, err := d.file.WriteAt(piece[:n], d.have); err != nil {
				return &localError{err}
			}
			d.hash.Write(piece[:n])
			d.have += int64(n)
			d.came(int64(n), int64(n))
		}
		switch {
		case errors.Is(err, io.EOF) && d.have < d.want.Size:
			return fmt.Errorf("blob %s was cut at byte %d of %d: %w", d.want.Digest, d.have, d.want.Size, io.ErrUnexpectedEOF)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && context.Cause(ctx) != nil:
			return fmt.Errorf("reading blob %s: %w", d.want.Digest, context.Cause(ctx))
		case err != nil:
			return fmt.Errorf("blob %s was cut at byte %d of %d: %w", d.want.Digest, d.have, d.want.Size, err)
		}
	}
	return nil
}

// localError is a failure of this machine, which asking the registry again will not mend.
type localError struct{ err error }

func (e *localError) Error() string { return e.err.Error() }
func (e *localError) Unwrap() error { return e.err }

// final tells an error that another try would only meet again: the registry's word,
// after the transport has asked often enough, or a failure of this machine.
func final(err error) bool {
	var status *statusError
	var local *localError
	return errors.As(err, &status) || errors.As(err, &local) || !transientError(err)
}

func (d *download) matches() bool {
	return d.have == d.want.Size && hex.EncodeToString(d.hash.Sum(nil)) == d.want.Digest.Hex
}

// restart throws away what has come.
func (d *download) restart() error {
	if err := d.file.Truncate(0); err != nil {
		return fmt.Errorf("writing blob %s: %w", d.want.Digest, err)
	}
	d.hash.Reset()
	d.came(-d.have, 0)
	d.have = 0
	return nil
}
