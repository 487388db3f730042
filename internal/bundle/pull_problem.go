package bundle

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"ambientlab/internal/problem"
)

// explain returns the problem behind the failure of an image.
func explain(ctx context.Context, ref Reference, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("pulling %s: %w", ref, context.Cause(ctx))
	}
	var known *problem.Problem
	if errors.As(err, &known) {
		p := *known
		p.Seen = fmt.Sprintf("pulling %s: %s", ref, known.Seen)
		return &p
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
			With("Check that the image exists: for an image that does not exist, " +
				"some registries answer in the same way.")
	case http.StatusNotFound:
		return problem.New(problem.ImageUnknown, err, "pulling %s", ref)
	}
	return problem.New(problem.RegistryUnreachable, err, "pulling %s", ref)
}
