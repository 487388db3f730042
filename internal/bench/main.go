// Command bench measures the lab: sm:install and the commands that it replaces, on as many nodes with the same images,
// and what a user waits for after that. It prints a table and writes JSON. `make bench` runs it; no test depends on its
// numbers.
//
// Both sides run in turns, so that a change of the machine's load meets both. Each measurement has its wall time and
// the CPU time that the whole machine spent meanwhile: of two runs on a loaded machine, the CPU times can be compared.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// options are the flags.
type options struct {
	rounds  int
	parts   map[string]bool
	json    string
	objects []int
	grown   []int
	old     string
	keep    bool
}

// The parts that can be measured.
var allParts = []string{"install", "images", "lessons", "verify", "apply", "delete", "start", "growth"}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	opts, err := parse(args)
	if err != nil {
		return err
	}
	b, err := newBench(ctx, opts)
	if err != nil {
		return err
	}
	defer b.close()
	measures := map[string]func(context.Context) error{
		"install": b.install, "images": b.images, "lessons": b.lessons, "verify": b.verify, "apply": b.apply,
		"delete": b.delete, "start": b.start, "growth": b.growth,
	}
	began := time.Now()
	for _, part := range allParts {
		if !opts.parts[part] {
			continue
		}
		if err := measures[part](ctx); err != nil {
			// What was measured before is kept.
			return errors.Join(fmt.Errorf("measuring %s: %w", part, err), b.report.write(os.Stdout, opts.json))
		}
	}
	b.report.Seconds = time.Since(began).Seconds()
	return b.report.write(os.Stdout, opts.json)
}

func parse(args []string) (options, error) {
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	opts := options{parts: map[string]bool{}}
	flags.IntVar(&opts.rounds, "rounds", 3, "how often the two ways of installing are measured, in turns")
	flags.StringVar(&opts.json, "json", "bench.json", "file for the numbers")
	flags.StringVar(&opts.old, "old", "", "another compiled lab (mage -compile), whose sm:install is measured as well")
	flags.BoolVar(&opts.keep, "keep", false, "keep the last lab")
	parts := flags.String("parts", strings.Join(allParts, ","), "what is measured")
	short := flags.Bool("short", false, "one round, and at most 1,000 objects instead of 10,000")
	if err := flags.Parse(args); err != nil {
		return opts, err
	}
	opts.objects, opts.grown = []int{1000, 10000}, []int{100, 1000, 10000}
	if *short {
		opts.rounds, opts.objects, opts.grown = 1, []int{1000}, []int{100, 1000}
	}
	if opts.rounds < 1 {
		return opts, fmt.Errorf("-rounds=%d is not accepted; accepted: 1 or more", opts.rounds)
	}
	for _, part := range strings.Split(*parts, ",") {
		if !slices.Contains(allParts, part) {
			return opts, fmt.Errorf("-parts names %q; accepted: %s", part, strings.Join(allParts, ","))
		}
		opts.parts[part] = true
	}
	if os.Getenv("SM_BUNDLE") == "" {
		return opts, errors.New("SM_BUNDLE is not set: both ways of installing take their images from that bundle")
	}
	file, err := filepath.Abs(opts.json)
	opts.json = file
	return opts, err
}
