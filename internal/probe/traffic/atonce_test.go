package traffic

import (
	"strings"
	"testing"
	"time"
)

// TestLoadAtOnce: fortio lets each connection send two requests or more where it keeps a rate.
func TestLoadAtOnce(t *testing.T) {
	load := Load{Method: "GET", Path: "/", Count: 8, Concurrency: 8, Rate: 60, Timeout: time.Second, Run: "r1"}
	for atOnce, want := range map[bool]string{false: "-n 8 -c 8 -qps 60 ", true: "-n 8 -c 8 -qps 0 "} {
		load.AtOnce = atOnce
		if got := strings.Join(loadCommand(load, "http://appb"), " "); !strings.Contains(got, want) {
			t.Errorf("at once %t: %s", atOnce, got)
		}
	}
}
