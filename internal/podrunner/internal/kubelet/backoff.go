package kubelet

import "time"

// A container that ends is started again at once the first time, then after 10 s, 20 s and so on up to five minutes,
// and at once again after it has run for ten minutes (Kubernetes documentation, "Pod Lifecycle", container restart
// policy).
const (
	backOffFirst = 10 * time.Second
	backOffMost  = 5 * time.Minute
	backOffReset = 10 * time.Minute
)

// crashLoop is the reason for which a container waits in such a pause.
const crashLoop = "CrashLoopBackOff"

// backOff computes the pauses before restarts. The zero value is for a container that has not ended yet.
type backOff struct{ next time.Duration }

// pause is how long to wait before the next start, after a run of the given length.
func (b *backOff) pause(ran time.Duration) time.Duration {
	if ran >= backOffReset {
		b.next = 0
	}
	pause := b.next
	b.next = min(max(2*b.next, backOffFirst), backOffMost)
	return pause
}
