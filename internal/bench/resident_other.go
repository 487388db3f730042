//go:build !linux

package main

import "os"

// peakResident is not known: other systems have another unit, or no such value.
func peakResident(*os.ProcessState) (size int64, known bool) { return 0, false }
