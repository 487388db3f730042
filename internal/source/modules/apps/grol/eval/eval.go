// Package eval declares the evaluator that fortio's scripting command uses; it refuses every script.
package eval

import (
	"context"
	"errors"

	"grol.io/grol/object"
)

// Terminal is the interactive terminal; there never is one here.
type Terminal struct{}

// Suspend does nothing.
func (*Terminal) Suspend() {}

// Resume returns a context that can be cancelled.
func (*Terminal) Resume(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithCancel(ctx)
}

// State is an evaluator's state.
type State struct {
	Term    *Terminal
	Context context.Context //nolint:containedctx // the shape that fortio expects
	Cancel  context.CancelFunc
}

// NewState returns an empty state.
func NewState() *State { return &State{} }

// Error turns an error into a value.
func (*State) Error(err error) object.Object { return object.String{Value: err.Error()} }

// Errorf turns a message into a value.
func (*State) Errorf(format string, _ ...any) object.Object { return object.String{Value: format} }

// EvalString refuses the script.
func EvalString(_ any, _ string, _ bool) (object.Object, error) { return nil, errors.ErrUnsupported }
