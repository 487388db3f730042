package workshop

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"ambientlab/internal/atomicfile"
)

// Progress is what is the learner's own. It says nothing about the lab: that is read from the cluster.
type Progress struct {
	// Lab is when the lab was installed: the notes of a lab that was deleted are not those of a new one.
	Lab time.Time `json:"lab"`
	// Stations are the notes by the station's name.
	Stations map[string]Notes `json:"stations"`
	// Coming are the notes on the first station while no lab is installed.
	Coming Notes `json:"coming,omitzero"`
	// Break are the notes on the fault that sm:break has put in; nil where there is none.
	Break *Broken `json:"break,omitempty"`
	// Fixed are the numbers of the faults that the learner has fixed.
	Fixed []int `json:"fixed,omitempty"`
}

// Notes are the learner's on one station.
type Notes struct {
	// Prediction is the letter of a choice, Hints how many hints were taken.
	Prediction string `json:"prediction,omitempty"`
	Hints      int    `json:"hints,omitempty"`
	// Began is when the learner came to the station, Done when its claims were first proven.
	Began time.Time `json:"began,omitzero"`
	Done  time.Time `json:"done,omitzero"`
}

// of gives the progress for an installed lab: what it was before, unless the lab is another one. install is the name of
// the station at which a lab is installed.
func (p Progress) of(created time.Time, install string) Progress {
	if !p.Lab.Equal(created) {
		p = Progress{Lab: created, Stations: map[string]Notes{install: p.Coming}, Fixed: p.Fixed}
	}
	p.Coming = Notes{}
	return p
}

// done tells whether the learner has finished a station.
func (p Progress) done(station string) bool { return !p.Stations[station].Done.IsZero() }

// summary tells how long the learner took for the stations, and with how many hints.
func (p Progress) summary(stations []Station) string {
	var took time.Duration
	done, hints := 0, 0
	for _, s := range stations {
		if n := p.Stations[s.Name]; !n.Done.IsZero() {
			took += lasted(n)
			done++
			hints += n.Hints
		}
	}
	return fmt.Sprintf("This was the last station. You did %d of %s in %s, with %s.", done,
		counted(len(stations), "station"), took, counted(hints, "hint"))
}

// Load reads the progress from a file; one that does not exist is empty. A file that cannot be read as progress is an
// error: it is not overwritten.
func Load(file string) (Progress, error) {
	var p Progress
	raw, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err == nil {
		err = json.Unmarshal(raw, &p)
	}
	if err != nil {
		return p, fmt.Errorf("reading the workshop's notes in %s: %w", file, err)
	}
	return p, nil
}

// Save writes the progress to a file that only the user can read.
func (p Progress) Save(file string) error {
	raw, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("writing the workshop's notes: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("writing the workshop's notes: %w", err)
	}
	return atomicfile.Write(file, raw, 0o600)
}
