package bundle

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"ambientlab/internal/problem"
)

// explain makes of an image's failure the problem that it is.
func explain(ctx context.Context, ref Reference, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("pulling %s: %w", ref, context.Cause(ctx))
	}
	var known *problem.Problem
	if errors.As(err, &known) {
		framed := *known
		framed.Seen = fmt.Sprintf("pulling %s: %s", ref, known.Seen)
		return &framed
	}
	var local *localError
	if errors.As(err, &local) {
		return fmt.Errorf("pulling %s: %w", ref, err)
	}
	var answer *transport.Error
	if !errors.As(err, &answer) {
		return problem.New(problem.RegistryUnreachable, err, "pulling %s", ref)
	}
	switch answer.StatusCode {
	case http.StatusUnauthorized, http.StatusForbidden:
		return problem.New(problem.RegistryDenied, err, "pulling %s", ref).
			With("Check that the image exists: a registry that does not know it may answer in the same way.")
	case http.StatusNotFound:
		return problem.New(problem.ImageUnknown, err, "pulling %s", ref)
	case http.StatusTooManyRequests:
		p := problem.New(problem.RegistryLimited, err, "pulling %s", ref)
		if wait := asked(err); wait > 0 {
			p = p.With(fmt.Sprintf("The registry asks to wait %s.", wait.Round(time.Second)))
		}
		return p
	}
	return problem.New(problem.RegistryUnreachable, err, "pulling %s", ref)
}

// asked is how long the registry asked to wait.
func asked(err error) time.Duration {
	var status *statusError
	if !errors.As(err, &status) {
		return 0
	}
	return retryAfter(status.answer.Header.Get("Retry-After"), time.Now())
}
