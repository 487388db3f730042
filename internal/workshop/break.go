package workshop

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	"ambientlab/internal/probe"
	"ambientlab/internal/sabotage"
	"ambientlab/specs"
)

// Broken is a fault that sm:break has put in.
type Broken struct {
	// Number is the sabotage's in sabotage.All, from 1 on.
	Number int `json:"number"`
	// Seen tells whether its symptom was seen: the proxies have a change some seconds later.
	Seen  bool  `json:"seen,omitempty"`
	Notes Notes `json:"notes"`
}

// breakStation is the name of the station at which a fault is looked for.
const breakStation = "break"

// errBroken refuses a second fault while one is in the lab.
var errBroken = errors.New("a fault is in the lab already; fix it first, or restore the lab with mage sm:break -off")

// errNotBroken refuses to restore a lab without a fault.
var errNotBroken = errors.New("sm:break has put no fault into this lab")

// station gives the station for a fault: its claims are those that the fault refutes, its name is hidden.
func (b Broken) station(text Text) Station {
	s := sabotage.All()[b.Number-1]
	text.Hints = []string{
		fmt.Sprintf("The target that would repair it is sm:%s.", s.Target), "Look at " + kindsOf(s) + ".",
	}
	if !b.Notes.Done.IsZero() {
		text.Explanation = "It was this: " + s.Title + ". " + text.Explanation
	}
	return Station{
		Name: breakStation, Claims: s.Claims, Text: text,
		Asked: func(on probe.Lessons) probe.Lessons { return on },
		Met:   func(Look, func(string) bool) bool { return true },
	}
}

// kindsOf names the kinds of object that a sabotage changes.
func kindsOf(s sabotage.Sabotage) string {
	var kinds []string
	for _, change := range s.Changes {
		if !slices.Contains(kinds, change.Resource.Resource) {
			kinds = append(kinds, change.Resource.Resource)
		}
	}
	return "the " + strings.Join(kinds, " and the ")
}

// breakText reads what the learner is told while a fault is in the lab.
func breakText() (Text, error) {
	raw, err := specs.Station(breakStation)
	if err != nil {
		return Text{}, err
	}
	sections, err := sectionsOf(raw, "Goal", "Explanation")
	return Text{
		Title: sections[""], Goal: sections["Goal"], Explanation: sections["Explanation"],
	}, err
}

// candidates lists the numbers of the faults that show in a lab with these lessons.
func candidates(on probe.Lessons) ([]int, error) {
	for _, needed := range []string{"apps", "waypoint", "fault", "authz"} {
		if !on.On(needed) {
			return nil, fmt.Errorf("sm:break needs lesson %s, which is off: run mage sm:%s first", needed, needed)
		}
	}
	if authz := on.Authz(); authz != nil && len(authz.Without()) > 0 {
		return nil, errors.New("sm:break needs appa and the gateway in the policy: run mage sm:authz first")
	}
	var numbers []int
	for i, s := range sabotage.All() {
		if !s.Strict || probe.Strict(on) {
			numbers = append(numbers, i+1)
		}
	}
	return numbers, nil
}

// Break puts a fault into the lab: that of a number, or one chosen at random for 0.
func (e *Engine) Break(ctx context.Context, number int) error {
	err := e.breakLab(ctx, number)
	e.fail(err)
	return err
}

func (e *Engine) breakLab(ctx context.Context, number int) error {
	v := e.View()
	if v.Broken {
		return errBroken
	}
	possible, err := candidates(v.Look.Lessons)
	if err != nil {
		return err
	}
	if number != 0 && !slices.Contains(possible, number) {
		return fmt.Errorf("number %d is not accepted; accepted: %s", number, listed(possible))
	}
	number = cmp.Or(number, possible[rand.IntN(len(possible))]) //nolint:gosec // a choice, no secret
	broken := &Broken{Number: number, Notes: Notes{Began: time.Now().UTC()}}
	e.set(func() {
		e.progress.Break = broken
		e.report, e.output, e.trouble = nil, nil, ""
		err = e.progress.Save(e.file)
	})
	if err == nil {
		err = e.lab.Break(ctx, number)
	}
	e.set(func() { e.touched = time.Now() })
	e.kick()
	return err
}

func listed(numbers []int) string {
	var words []string
	for _, n := range numbers {
		words = append(words, fmt.Sprint(n))
	}
	return strings.Join(words, ", ")
}

// Restore takes the fault out of the lab, which gives the search up.
func (e *Engine) Restore(ctx context.Context) error {
	e.mu.Lock()
	broken := e.progress.Break
	e.mu.Unlock()
	if broken == nil {
		return errNotBroken
	}
	commands, err := e.lab.Mend(ctx, broken.Number)
	if err != nil {
		e.fail(err)
		return err
	}
	if err := e.run(ctx, commands); err != nil {
		return err
	}
	return e.leave()
}

// leave goes from the fault back to the learner's station.
func (e *Engine) leave() error {
	var err error
	e.set(func() {
		e.progress.Break, e.report = nil, nil
		err = e.progress.Save(e.file)
	})
	e.kick()
	return err
}

// withoutCauses gives a report that does not name the fault.
func withoutCauses(r probe.Report) *probe.Report {
	r.Claims = slices.Clone(r.Claims)
	for i := range r.Claims {
		r.Claims[i].Causes = nil
	}
	return &r
}
