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
	"ambientlab/internal/session"
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
var errBroken = errors.New("a fault is in the lab already: fix it first, or restore the lab")

// errNotBroken refuses to restore a lab without a fault.
var errNotBroken = errors.New("sm:break has put no fault into this lab")

// station gives the station for a fault: its claims are those that the fault refutes, its name is hidden.
func (b Broken) station(text Text) Station {
	s := sabotage.All()[b.Number-1]
	text.Hints = []string{
		fmt.Sprintf("The target that would repair it is sm:%s.", s.Target),
		"Look at what this shows: " + whereToLook(s),
	}
	if !b.Notes.Done.IsZero() {
		text.Explanation = b.named() + " " + text.Explanation
	}
	return Station{
		Name: breakStation, Claims: s.Claims, Text: text,
		Asked: func(on probe.Lessons) probe.Lessons { return on },
		Met:   func(Look, func(string) bool) bool { return true },
	}
}

// named tells what the fault was.
func (b Broken) named() string { return "It was this: " + sabotage.All()[b.Number-1].Title + "." }

// whereToLook gives the commands that show the objects of the kinds that a sabotage changes.
func whereToLook(s sabotage.Sabotage) string {
	var commands []string
	for _, change := range s.Changes {
		command := fmt.Sprintf("`kubectl -n %s get %s -o yaml`", cmp.Or(change.Namespace, defaultNamespace),
			change.Resource.Resource)
		if !slices.Contains(commands, command) {
			commands = append(commands, command)
		}
	}
	return strings.Join(commands, " and ")
}

// breakText reads what the learner is told while a fault is in the lab.
func breakText(command string) (Text, error) {
	raw, err := specs.Station(breakStation)
	if err != nil {
		return Text{}, err
	}
	sections, err := sectionsOf(session.TypedWith(command, raw), "Goal", "Explanation")
	return Text{
		Title: sections[""], Goal: sections["Goal"], Explanation: sections["Explanation"],
	}, err
}

// candidates lists the numbers of the faults that show in a lab with these lessons.
func (e *Engine) candidates(look Look) ([]int, error) {
	var off []string
	for _, needed := range []string{"apps", "waypoint", "fault", "authz"} {
		if !look.Lessons.On(needed) {
			off = append(off, "sm:"+needed)
		}
	}
	switch {
	case len(off) > 0 && look.Lessons.On("split"): // sm:lab would be refused
		return nil, fmt.Errorf("sm:break needs %s, and sm:split excludes sm:fault: run %s sm:split -off first, then "+
			"%s sm:lab, which turns on what is missing", strings.Join(off, ", "), e.command, e.command)
	case len(off) > 0:
		return nil, fmt.Errorf("sm:break needs %s: run %s sm:lab first, which turns on what is missing",
			strings.Join(off, ", "), e.command)
	}
	if authz := look.Lessons.Authz(); authz != nil && len(authz.Without()) > 0 {
		return nil, fmt.Errorf("sm:break needs appa and the gateway in the policy: run %s sm:authz first", e.command)
	}
	var numbers []int
	for i, s := range sabotage.All() {
		claims := e.counted(Broken{Number: i + 1}.station(e.broken), look)
		shown := look.NoPackets == "" || !s.Unconfigured
		if len(claims) > 0 && shown && (s.Shows == nil || s.Shows(look.Lessons)) {
			numbers = append(numbers, i+1)
		}
	}
	return numbers, nil
}

// Break puts a fault into the lab: that of a number, or for 0 one that is chosen at random, of those that the learner
// has not fixed yet.
func (e *Engine) Break(ctx context.Context, number int) error {
	return e.act(func() error { return e.breakLab(ctx, number) })
}

func (e *Engine) breakLab(ctx context.Context, number int) error {
	v := e.View()
	switch {
	case v.Broken:
		return errBroken
	case v.Doing != "":
		return errBusy
	}
	possible, err := e.candidates(v.Look)
	if err != nil {
		return err
	}
	if number != 0 && !slices.Contains(possible, number) {
		if v.Look.NoPackets != "" && sabotage.All()[number-1].Unconfigured {
			return fmt.Errorf("requests alone show the fault of number %d, and the pods of this lab exchange no "+
				"packets; accepted: %s", number, listed(possible))
		}
		return fmt.Errorf("number %d is not accepted in this lab; accepted: %s", number, listed(possible))
	}
	e.set(func() {
		chosen := slices.DeleteFunc(slices.Clone(possible),
			func(n int) bool { return slices.Contains(e.progress.Fixed, n) })
		if len(chosen) == 0 {
			chosen = possible
		}
		number = cmp.Or(number, chosen[rand.IntN(len(chosen))]) //nolint:gosec // a choice, no secret
		e.progress.Break = &Broken{Number: number, Notes: Notes{Began: time.Now().UTC()}}
		e.report, e.output = nil, nil
		err = e.progress.Save(e.file)
	})
	if err == nil {
		err = e.lab.Break(ctx, number)
	}
	if err != nil { // some of the changes may have been made
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), symptom)
		defer cancel()
		return errors.Join(err, e.restore(ctx))
	}
	e.set(e.touch)
	e.kick()
	return nil
}

func listed(numbers []int) string {
	var words []string
	for _, n := range numbers {
		words = append(words, fmt.Sprint(n))
	}
	return strings.Join(words, ", ")
}

// Restore takes the fault out of the lab, which gives the search up, and tells what it was.
func (e *Engine) Restore(ctx context.Context) error {
	e.mu.Lock()
	broken := e.progress.Break
	e.mu.Unlock()
	err := e.act(func() error { return e.restore(ctx) })
	if err == nil {
		e.set(func() { e.told = "The lab is restored. " + broken.named() })
	}
	return err
}

func (e *Engine) restore(ctx context.Context) error {
	e.mu.Lock()
	broken := e.progress.Break
	e.mu.Unlock()
	if broken == nil {
		return errNotBroken
	}
	commands, err := e.lab.Mend(ctx, broken.Number)
	if err != nil {
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
