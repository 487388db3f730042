//go:build !e2efull

package lab

// rounds is how often TestEmbeddedAgain starts a lab, packetsRounds how often TestPacketsAgain does. everyBreak says
// whether TestBreaks fixes every fault. stationAddons are the add-ons of TestEveryStation, without which the workshop
// leaves its station out. All of it takes too long for make test.
const (
	rounds        = 3
	packetsRounds = 1
	everyBreak    = false
	stationAddons = "none"
)
