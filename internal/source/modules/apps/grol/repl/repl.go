// Package repl declares the loop of fortio's scripting command; it is never reached.
package repl

import (
	"errors"
	"io"

	"grol.io/grol/eval"
)

// Options are the loop's settings.
type Options struct {
	ShowEval    bool
	HistoryFile string
	MaxHistory  int
	PreInput    func(*eval.State)
}

// Interactive ends at once with a failure.
func Interactive(Options) int { return 1 }

// EvalAll refuses.
func EvalAll(*eval.State, io.Reader, io.Writer, Options) []error {
	return []error{errors.ErrUnsupported}
}
