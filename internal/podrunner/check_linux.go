package main

import (
	"encoding/json"
	"fmt"
	"os"

	"ambientlab/podrunner/internal/isolate"
	"ambientlab/podrunner/internal/trial"
)

// check tries each thing that running pods needs, and prints what failed as JSON: {"step": ..., "error": ...}, with
// both empty where all succeeded.
func check() error {
	result := trial.Result{}
	if !isolate.Inside() {
		code, err := isolate.Run()
		if err == nil {
			os.Exit(code)
		}
		result = trial.Result{Step: "namespaces", Error: err.Error()}
	} else if err := isolate.Settle(); err != nil {
		result = trial.Result{Step: "mounts", Error: err.Error()}
	} else {
		result = trial.Run()
	}
	if err := json.NewEncoder(os.Stdout).Encode(result); err != nil {
		return fmt.Errorf("printing the result: %w", err)
	}
	return nil
}
