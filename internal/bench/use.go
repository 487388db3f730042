package main

import (
	"context"
	"slices"
	"strings"

	"ambientlab/internal/lesson"
)

// lessons measures each lesson of sm:lab until it is in force and shown to be, in order, and then each until it is off.
// The other lessons cannot all be on: some exclude each other, and some need an add-on.
func (b *bench) lessons(ctx context.Context) error {
	if err := b.needLab(ctx); err != nil {
		return err
	}
	course := lesson.Course()
	for range b.rounds {
		for _, l := range course {
			if err := b.target(ctx, "lessons", "sm:"+l.Name); err != nil {
				return err
			}
		}
		for _, l := range slices.Backward(course) {
			if err := b.target(ctx, "lessons", "sm:"+l.Name, "-off"); err != nil {
				return err
			}
		}
	}
	return nil
}

// verify measures sm:verify with the lessons of sm:lab on.
func (b *bench) verify(ctx context.Context) error {
	if err := b.needLab(ctx); err != nil {
		return err
	}
	for _, l := range lesson.Course() {
		if err := b.run(ctx, b.labEnv(), b.lab, "sm:"+l.Name); err != nil {
			return err
		}
	}
	for range b.rounds {
		if err := b.target(ctx, "verify", "sm:verify"); err != nil {
			return err
		}
	}
	return nil
}

// delete measures the deletion of a lab in which all lessons of the course are on.
func (b *bench) delete(ctx context.Context) error {
	if err := b.needLab(ctx); err != nil {
		return err
	}
	b.installed = false
	return b.target(ctx, "delete", "sm:delete")
}

// target measures one target of the lab.
func (b *bench) target(ctx context.Context, group string, args ...string) error {
	began := now()
	if err := b.run(ctx, b.labEnv(), b.lab, args...); err != nil {
		return err
	}
	b.report.spent(group, strings.Join(args, " "), began)
	return nil
}

// starts is how often a start is measured.
const starts = 10

// start measures how long a target takes that does little, which is about how long it takes until a target begins: with
// `go tool mage` where nothing changed, and with the compiled lab.
func (b *bench) start(ctx context.Context) error {
	ways := []struct {
		name    string
		command []string
	}{
		{"go tool mage", []string{"go", "tool", "mage", "sm:bundleShow", b.bundle.Path()}},
		{"compiled lab", []string{b.lab, "sm:bundleShow", b.bundle.Path()}},
		{"go tool -n mage, which starts nothing", []string{"go", "tool", "-n", "mage"}},
	}
	if err := b.run(ctx, nil, "go", "tool", "mage", "-l"); err != nil {
		return err
	}
	for i := range starts + 1 {
		for _, way := range ways {
			began := now()
			if err := b.run(ctx, b.labEnv(), way.command[0], way.command[1:]...); err != nil {
				return err
			}
			if i > 0 { // the first reads the programs from the disk
				b.report.spent("start", way.name, began)
			}
		}
	}
	return nil
}
