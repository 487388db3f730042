package lab

import (
	"errors"
	"fmt"
	"strings"

	"ambientlab/internal/cluster"
	"ambientlab/internal/cluster/embedded"
	"ambientlab/internal/problem"
)

// beside says, to somebody whose target finds no kind cluster of the lab's name, that there is an embedded control
// plane of that name: after `make lab` chose that one, every other target looks for a kind cluster unless told otherwise.
func (l *Lab) beside() []string {
	if l.Settings.Provider != ProviderKind {
		return nil
	}
	other, err := embedded.New(embedded.Options{Name: l.Settings.Cluster, StateDir: l.stateDir})
	if err != nil || !other.Exists() {
		return nil
	}
	return []string{fmt.Sprintf("There is an embedded control plane of the name %s: put SM_PROVIDER=embedded before the command, as in `SM_PROVIDER=embedded mage sm:status`.", l.Settings.Cluster)}
}

// tellBeside says the same as a note, where that there is no kind cluster is no failure.
func (l *Lab) tellBeside(info cluster.Info) {
	if info.Exists {
		return
	}
	for _, line := range l.beside() {
		l.tell("%s", line)
	}
}

// adviseBeside puts the same before the advice of a Docker engine that does not answer.
func (l *Lab) adviseBeside(err error) error {
	var known *problem.Problem
	if errors.As(err, &known) {
		known.With(l.beside()...)
	}
	return err
}

// withStopped adds to the failure of a run the processes of the embedded control plane that have ended, with their
// logs' last lines: that is most often why it failed, and nothing else would say so.
func (l *Lab) withStopped(err error) error {
	if err == nil || l.embedded == nil || problem.Is(err, problem.Interrupted) {
		return err
	}
	var stopped []string
	for _, epitaph := range l.embedded.Stopped() {
		if _, quoted, _ := strings.Cut(epitaph, "\n"); quoted == "" || !strings.Contains(err.Error(), quoted) {
			stopped = append(stopped, epitaph)
		}
	}
	if len(stopped) == 0 {
		return err
	}
	return errors.Join(err, problem.New(problem.ClusterStopped, nil, "%s", strings.Join(stopped, "; ")))
}
