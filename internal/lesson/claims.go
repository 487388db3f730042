package lesson

import (
	"slices"

	"ambientlab/internal/probe"
)

// Claims lists what the lessons claim, in the order of the lessons.
func Claims() []probe.Claim {
	return slices.Concat(appsClaims(), waypointClaims(), faultClaims(), authzClaims())
}
