//go:build e2efull

package lab

const (
	rounds        = 20
	packetsRounds = 20
	everyBreak    = true
	stationAddons = "prometheus"
)
