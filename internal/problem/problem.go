// Package problem is the catalogue of everything that can go wrong in a lab and
// that a learner can do something about. A problem has an ID that never changes,
// what was seen, advice, and an exit code, so a script, a CI job and a search
// engine can all name the same failure.
package problem

import (
	"errors"
	"fmt"
	"slices"
)

// Layer is the part of the lab a problem belongs to. Its number is the tens digit
// of the exit code, so `$? / 10` already says where to look.
type Layer int

// The layers, from the user's input down to the measured proofs. Their numbers are
// part of the interface: never renumber one.
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

// String gives the layer's name as the README uses it.
func (l Layer) String() string {
	switch l {
	case LayerSettings:
		return "settings"
	case LayerHost:
		return "host"
	case LayerBundle:
		return "bundle"
	case LayerCluster:
		return "cluster"
	case LayerApply:
		return "apply"
	case LayerMesh:
		return "mesh"
	case LayerProof:
		return "proof"
	case LayerRun:
		return "run"
	default:
		return fmt.Sprintf("layer %d", int(l))
	}
}

// Kind is one entry of the catalogue. Kinds are values declared once, in the file of
// their layer, and compared by ID.
type Kind struct {
	// ID is stable and unique, such as LAB-DOCKER-NOT-RUNNING.
	ID string
	// Layer and Number give the exit code. Kinds of one layer may share a number
	// when a script would treat them alike; the ID always tells them apart.
	Layer  Layer
	Number int
	// Title says in one line what is wrong, with no particulars.
	Title string
	// Advice is what to do about it, one action a line, most likely first.
	Advice []string
}

// Exit is the process's exit code for the kind: layer*10 + number. The one exception
// is an interrupted run, which is 130 as shells have it for SIGINT.
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

// Problem is a failure of a known Kind with its particulars. It is an error.
type Problem struct {
	// ID is the kind's.
	ID string
	// Title is the kind's.
	Title string
	// Seen is what was observed here and now.
	Seen string
	// Advice is what to do, one action a line.
	Advice []string
	// Exit is the process's exit code.
	Exit int
	// Err is the cause, or nil.
	Err error
}

// New makes a problem of a kind. err is the cause and may be nil; seenFormat and
// args say what was observed, as fmt.Sprintf takes them.
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

// With puts advice that fits the particulars before the kind's own, and returns the
// same problem.
func (p *Problem) With(advice ...string) *Problem {
	p.Advice = slices.Concat(advice, p.Advice)
	return p
}

// Error gives the whole in one line: what was seen, why, and the ID.
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

// Unwrap gives the cause.
func (p *Problem) Unwrap() error { return p.Err }

// Is makes errors.Is match two problems of the same kind.
func (p *Problem) Is(target error) bool {
	other, ok := target.(*Problem)
	return ok && other.ID == p.ID
}

// Is tells whether err is, or wraps, a problem of the kind.
func Is(err error, kind Kind) bool {
	for _, p := range All(err) {
		if p.ID == kind.ID {
			return true
		}
	}
	return false
}

// ExitCode is the exit code for an error: 0 for nil, that of the first problem in
// the chain, and 1 for an error that holds no problem.
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

// All lists the problems in an error's tree, outermost and first joined first. A
// problem that is reachable twice is listed once.
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

// Lookup finds a kind by its ID.
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
