//go:build !linux

package trace

import "time"

// spent is not known on this system: the trace then has no CPU times but those of the profile.
func spent() (machine, process time.Duration) { return 0, 0 }
