package lab

import "time"

// Deadlines of single steps. They are generous: a step that waits always says what for.
const (
	quick   = 2 * time.Minute
	patient = 10 * time.Minute
)
