package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
)

// images measures how long it takes until three nodes have all images of the bundle, with this project's loader and
// with kind's: a benchmark of package bundle does that, on nodes that run nothing but containerd.
func (b *bench) images(ctx context.Context) error {
	command := exec.CommandContext(ctx, "go", "test", "-tags=e2e,disable_pgv", "-run=^$", "-bench=LoadIntoThreeNodes",
		fmt.Sprintf("-benchtime=%dx", b.rounds), "-timeout=60m", "./internal/bundle")
	command.Env = os.Environ()
	out, err := command.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w\n%s", strings.Join(command.Args, " "), err, out)
	}
	names := map[string]string{
		"lab-s": "loader of the lab", "lab-cpu-s": "loader of the lab, CPU of the nodes",
		"kind-s": "kind load image-archive", "kind-cpu-s": "kind load image-archive, CPU of the nodes",
	}
	found := 0
	for line := range bytes.Lines(out) {
		fields := strings.Fields(string(line))
		if len(fields) == 0 || !strings.HasPrefix(fields[0], "BenchmarkLoadIntoThreeNodes") {
			continue
		}
		for i, unit := range fields {
			if name := names[unit]; name != "" {
				value, err := strconv.ParseFloat(fields[i-1], 64)
				if err != nil {
					return fmt.Errorf("reading %q: %w", line, err)
				}
				b.report.add("images", name, "s", value)
				found++
			}
		}
	}
	if found != len(names) {
		return fmt.Errorf("the benchmark has not printed all of its numbers:\n%s", out)
	}
	b.report.compare("images", "loader of the lab", "kind load image-archive")
	return nil
}
