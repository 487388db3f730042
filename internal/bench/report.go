package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// report is what was measured.
type report struct {
	Date    time.Time `json:"date"`
	Machine machine   `json:"machine"`
	// Seconds is how long the whole measurement took.
	Seconds  float64   `json:"seconds"`
	Measures []measure `json:"measures"`
	// Ratios are those of medians, by what is compared.
	Ratios []ratio `json:"ratios,omitempty"`
}

type machine struct {
	CPUs   int    `json:"cpus"`
	Memory int64  `json:"memoryBytes"`
	System string `json:"system"`
}

// measure is one thing that was measured several times.
type measure struct {
	// Group and Name say what was measured.
	Group string `json:"group"`
	Name  string `json:"name"`
	// Unit is that of Values: s, ms, MiB or KiB.
	Unit   string    `json:"unit"`
	Values []float64 `json:"values"`
	// CPU is the CPU time in seconds that the whole machine spent meanwhile, where that was measured.
	CPU []float64 `json:"cpuSeconds,omitempty"`
}

type ratio struct {
	Of     string  `json:"of"`
	To     string  `json:"to"`
	Median float64 `json:"median"`
}

func newReport() *report {
	return &report{Date: time.Now().UTC().Truncate(time.Second), Machine: machine{
		CPUs: runtime.NumCPU(), Memory: totalMemory(), System: runtime.GOOS + "/" + runtime.GOARCH,
	}}
}

func (r *report) find(group, name, unit string) *measure {
	for i := range r.Measures {
		if m := &r.Measures[i]; m.Group == group && m.Name == name {
			return m
		}
	}
	r.Measures = append(r.Measures, measure{Group: group, Name: name, Unit: unit})
	return &r.Measures[len(r.Measures)-1]
}

func (r *report) add(group, name, unit string, value float64) {
	m := r.find(group, name, unit)
	m.Values = append(m.Values, value)
	fmt.Fprintf(os.Stderr, "%s: %s: %.3g %s\n", group, name, value, unit)
}

// spent adds the wall time and the machine's CPU time of what ran since began.
func (r *report) spent(group, name string, began mark) {
	wall, cpu := began.since()
	m := r.find(group, name, "s")
	m.Values, m.CPU = append(m.Values, wall), append(m.CPU, cpu)
	fmt.Fprintf(os.Stderr, "%s: %s: %.2f s, CPU of the machine %.2f s\n", group, name, wall, cpu)
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// compare notes the ratio of the medians of two measures of a group.
func (r *report) compare(group, of, to string) {
	a, b := median(r.find(group, of, "s").Values), median(r.find(group, to, "s").Values)
	if a > 0 && b > 0 {
		r.Ratios = append(r.Ratios, ratio{Of: group + ": " + of, To: group + ": " + to, Median: a / b})
	}
}

func (r *report) write(w io.Writer, file string) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintf(table, "%s, %d CPUs, %d GiB\t\t\t\t\n", r.Date.Format("2006-01-02 15:04 MST"), r.Machine.CPUs,
		r.Machine.Memory>>30)
	fmt.Fprintln(table, "WHAT\tMEDIAN\tUNIT\tCPU OF THE MACHINE, s\tALL")
	for _, m := range r.Measures {
		cpu := ""
		if len(m.CPU) > 0 {
			cpu = fmt.Sprintf("%.1f", median(m.CPU))
		}
		all := make([]string, len(m.Values))
		for i, v := range m.Values {
			all[i] = fmt.Sprintf("%.4g", v)
		}
		fmt.Fprintf(table, "%s: %s\t%.4g\t%s\t%s\t%s\n", m.Group, m.Name, median(m.Values), m.Unit, cpu,
			strings.Join(all, " "))
	}
	for _, x := range r.Ratios {
		fmt.Fprintf(table, "ratio of %s to %s\t%.2f\t\t\t\n", x.Of, x.To, x.Median)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(raw, '\n'), 0o644)
}
