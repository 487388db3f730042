package lesson

import "ambientlab/internal/probe"

// Claims lists what the lessons claim, in the order of the lessons.
func Claims() []probe.Claim {
	var all []probe.Claim
	for _, l := range All() {
		all = append(all, l.Claims...)
	}
	return all
}
