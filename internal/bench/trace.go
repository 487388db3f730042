package main

import (
	"encoding/json"
	"fmt"
	"os"
)

// tracedStep is a step of a target, as SM_TRACE records it.
type tracedStep struct {
	Plan    string  `json:"plan"`
	Step    string  `json:"step"`
	Seconds float64 `json:"seconds"`
	Waited  float64 `json:"waited"`
}

// readTrace reads the steps of a file that SM_TRACE named.
func readTrace(file string) ([]tracedStep, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var trace struct {
		Events []struct {
			Phase string     `json:"ph"`
			Args  tracedStep `json:"args"`
		} `json:"traceEvents"`
	}
	if err := json.Unmarshal(raw, &trace); err != nil {
		return nil, fmt.Errorf("reading the trace: %w", err)
	}
	var steps []tracedStep
	for _, ev := range trace.Events {
		if ev.Phase == "X" {
			steps = append(steps, ev.Args)
		}
	}
	return steps, nil
}
