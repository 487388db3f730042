package lab

import (
	"context"

	"ambientlab/internal/problem"
)

func (l *Lab) verifyConfiguration(context.Context, string) error {
	return problem.New(problem.HostUnsupported, nil, "the claims on configuration are not checked yet")
}
