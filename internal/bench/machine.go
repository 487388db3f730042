package main

import (
	"os"
	"strconv"
	"strings"
	"time"

	"ambientlab/internal/trace"
)

// mark is a point of time, with the CPU time that the machine had spent by then.
type mark struct {
	at  time.Time
	cpu float64
}

func now() mark { return mark{time.Now(), busy()} }

// since gives the seconds since then, of the clock and of the machine's CPUs.
func (m mark) since() (wall, cpu float64) { return time.Since(m.at).Seconds(), busy() - m.cpu }

// busy is how many seconds the machine's CPUs were not idle, and 0 where the system does not tell.
func busy() float64 {
	machine, _ := trace.Spent()
	return machine.Seconds()
}

// memory reads a field of /proc/meminfo in bytes, and gives 0 where the system does not tell.
func memory(field string) int64 {
	raw, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(raw)) {
		name, rest, _ := strings.Cut(line, ":")
		if name != field {
			continue
		}
		kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
		if err != nil {
			return 0
		}
		return kib << 10
	}
	return 0
}

func totalMemory() int64 { return memory("MemTotal") }

// memoryPeak watches how much less memory the machine has available; see peak.
func memoryPeak() func() int64 {
	return peak(func() int64 { return -memory("MemAvailable") })
}

// peak reads a value again and again until the function that it returns is called, which gives how much more than at
// first the value was at most.
func peak(read func() int64) func() int64 {
	before := read()
	high := before
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				high = max(high, read())
			}
		}
	}()
	return func() int64 {
		close(stop)
		<-stopped
		return max(high, read()) - before
	}
}
