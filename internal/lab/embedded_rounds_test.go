//go:build !e2efull

package lab

// rounds is how often TestEmbeddedAgain starts a lab, and packetsRounds how often TestPacketsAgain does. Twenty rounds
// take too long for make test.
const (
	rounds        = 3
	packetsRounds = 1
)
