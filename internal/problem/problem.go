// Package problem is the catalogue of the failures that a user can act on. A problem has an ID that never changes, what
// was observed, advice and an exit code, so a script, a CI job and a search engine use the same name for the same
// failure.
package problem

import (
	"errors"
	"fmt"
	"slices"
)

// Layer is the part of the lab that a problem belongs to. Its number is the tens digit of the exit code.
type Layer int

// The layers. Their numbers are part of the interface and never change.
const (
	LayerSettings Layer = 1
	LayerHost     Layer = 2
	LayerBundle   Layer = 3
	LayerCluster  Layer = 4
	LayerApply    Layer = 5
	LayerMesh     Layer = 6
	LayerProof    Layer = 7
	LayerRun      Layer = 9
)

// String returns the name of the layer, as the README writes it.
func (l Layer) String() string {
	names := map[Layer]string{
		LayerSettings: "settings", LayerHost: "host", LayerBundle: "bundle", LayerCluster: "cluster",
		LayerApply: "apply", LayerMesh: "mesh", LayerProof: "proof", LayerRun: "run",
	}
	if name, ok := names[l]; ok {
		return name
	}
	return fmt.Sprintf("layer %d", int(l))
}

// Kind is one entry of the catalogue. Each kind is declared once, in the file of its layer; kinds are compared by ID.
type Kind struct {
	// ID is stable and unique, such as LAB-DOCKER-NOT-RUNNING.
	ID string
	// Layer and Number give the exit code. Kinds of one layer may share a number; their IDs differ.
	Layer  Layer
	Number int
	// Title says in one line what is wrong, without details of the case.
	Title string
	// Advice lists what the user can do, one action per entry, the most likely first.
	Advice []string
}

// kind makes an entry of the catalogue.
func (l Layer) kind(id string, number int, title string, advice ...string) Kind {
	return Kind{ID: id, Layer: l, Number: number, Title: title, Advice: advice}
}

// Exit returns the exit code of the process: 10*Layer + Number. Interrupted is the exception: it is 130, the exit code
// that shells use for SIGINT.
func (k Kind) Exit() int {
	if k.ID == Interrupted.ID {
		return exitInterrupted
	}
	return int(k.Layer)*10 + k.Number
}

const (
	exitUnknown     = 1
	exitInterrupted = 130
)

// Problem is a failure of a known Kind, with the details of the case. It is an error.
type Problem struct {
	// ID is the kind's.
	ID string
	// Title is the kind's.
	Title string
	// Seen is what was observed.
	Seen string
	// Advice lists what the user can do, one action per entry.
	Advice []string
	// Exit is the exit code of the process.
	Exit int
	// Err is the cause, or nil.
	Err error
}

// New returns a problem of a kind. err is the cause and may be nil. seenFormat and args say what was observed, as
// arguments of fmt.Sprintf.
func New(kind Kind, err error, seenFormat string, args ...any) *Problem {
	return &Problem{
		ID:     kind.ID,
		Title:  kind.Title,
		Seen:   fmt.Sprintf(seenFormat, args...),
		Advice: slices.Clone(kind.Advice),
		Exit:   kind.Exit(),
		Err:    err,
	}
}

// With inserts advice for this case before the advice of the kind, and returns the same problem.
func (p *Problem) With(advice ...string) *Problem {
	p.Advice = slices.Concat(advice, p.Advice)
	return p
}

// Error returns what was observed, the cause and the ID in one line.
func (p *Problem) Error() string {
	seen := p.Seen
	if seen == "" {
		seen = p.Title
	}
	if p.Err == nil {
		return fmt.Sprintf("%s [%s]", seen, p.ID)
	}
	return fmt.Sprintf("%s: %v [%s]", seen, p.Err, p.ID)
}

// Unwrap returns the cause.
func (p *Problem) Unwrap() error { return p.Err }

// Is makes errors.Is match problems of the same kind.
func (p *Problem) Is(target error) bool {
	other, ok := target.(*Problem)
	return ok && other.ID == p.ID
}

// Is reports whether err is or wraps a problem of the kind.
func Is(err error, kind Kind) bool {
	for _, p := range All(err) {
		if p.ID == kind.ID {
			return true
		}
	}
	return false
}

// ExitCode returns the exit code for an error: 0 for nil, the exit code of the first problem in the error's tree, and 1
// for an error without a problem.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	var p *Problem
	if errors.As(err, &p) {
		return p.Exit
	}
	return exitUnknown
}

// All lists the problems in an error's tree: outer problems before inner ones, joined errors in their order. Each
// problem is listed once.
func All(err error) []*Problem {
	var found []*Problem
	var walk func(error)
	walk = func(e error) {
		if e == nil {
			return
		}
		if p, ok := e.(*Problem); ok && !slices.Contains(found, p) {
			found = append(found, p)
		}
		switch u := e.(type) {
		case interface{ Unwrap() error }:
			walk(u.Unwrap())
		case interface{ Unwrap() []error }:
			for _, inner := range u.Unwrap() {
				walk(inner)
			}
		}
	}
	walk(err)
	return found
}

// Lookup returns the kind with an ID.
func Lookup(id string) (kind Kind, known bool) {
	for _, k := range Catalogue() {
		if k.ID == id {
			return k, true
		}
	}
	return Kind{}, false
}

// Catalogue lists every kind, layer by layer.
func Catalogue() []Kind {
	return slices.Concat(
		settingsKinds(), hostKinds(), bundleKinds(), clusterKinds(),
		applyKinds(), meshKinds(), proofKinds(), runKinds(),
	)
}
