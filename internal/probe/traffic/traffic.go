// Package traffic sends the requests of the proofs and of the live loop: from appa's pod and from short-lived pods with
// fortio through the API server's exec, and through the ingress gateway from this host over a port-forward.
//
// Every batch is bounded in number, rate, concurrency and time, and every request of it carries the batch's run ID, so
// that the waypoint's access log distinguishes it from other traffic.
package traffic

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// Bounds of one batch. A lab's lesson needs no more, and the machine is a laptop. At the highest rate, as many requests
// as MaxConcurrency are open when each of them is delayed by four seconds.
const (
	MaxCount       = 2000
	MaxRate        = 100.0
	MaxConcurrency = 400
	maxTimeout     = 2 * time.Minute
)

// Headers that carry the run ID. User-Agent is in Istio's default access-log formats, RunHeader in the lab's own.
const (
	RunHeader   = "X-Lab-Run"
	AgentPrefix = "ambientlab/"
)

// NoAnswer is the Status of a request without an HTTP answer: refused, reset or timed out.
const NoAnswer = -1

// ErrStatusLost says that a command's exit status did not arrive, so it is unknown whether the command ended. Nothing
// can be concluded from its output.
var ErrStatusLost = errors.New("the exit status of the command was lost")

// Load is a batch of equal requests.
type Load struct {
	// Method and Path of the request; Path begins with a slash.
	Method, Path string
	// Host overrides the caller's usual Host header when not empty (callers behind the gateway only).
	Host string
	// Count is how many, Rate how many a second at most, Concurrency how many at a time at most.
	Count       int
	Rate        float64
	Concurrency int
	// AtOnce says that a caller with fortio does not keep the rate. Where it does, each connection sends two requests
	// or more, one after the other (periodic.Run): where some are delayed, the last answer comes after two delays.
	AtOnce bool
	// Timeout is how long one request may take.
	Timeout time.Duration
	// Run marks the requests; see NewRun.
	Run string
	// Traced requests continue a trace that the caller has begun; see TraceID.
	Traced bool
}

// NewRun makes an ID that no other batch has.
func NewRun() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}

// Agent is the User-Agent of a run's requests.
func Agent(run string) string { return AgentPrefix + run }

// TraceID is the trace that a run's caller has begun where its requests are Traced, and SpanID the span of the caller
// in it, both in hex (https://www.w3.org/TR/trace-context).
func TraceID(run string) string { return digest(run)[:32] }
func SpanID(run string) string  { return digest(run)[32:48] }

func digest(run string) string {
	sum := sha256.Sum256([]byte(run))
	return hex.EncodeToString(sum[:])
}

// headers are those of every request of the load, without Host.
func (l Load) headers() [][2]string {
	all := [][2]string{{"User-Agent", Agent(l.Run)}, {RunHeader, l.Run}}
	if l.Traced {
		all = append(all, [2]string{"traceparent", "00-" + TraceID(l.Run) + "-" + SpanID(l.Run) + "-01"})
	}
	return all
}

func (l Load) check() error {
	switch {
	case l.Count < 1 || l.Count > MaxCount:
		return fmt.Errorf("a batch of %d requests is outside 1 to %d", l.Count, MaxCount)
	case l.Rate <= 0 || l.Rate > MaxRate:
		return fmt.Errorf("%g requests a second are outside 0 to %g", l.Rate, MaxRate)
	case l.Concurrency < 1 || l.Concurrency > MaxConcurrency:
		return fmt.Errorf("%d requests at a time are outside 1 to %d", l.Concurrency, MaxConcurrency)
	case l.Timeout <= 0 || l.Timeout > maxTimeout:
		return fmt.Errorf("a timeout of %s is outside 0 to %s", l.Timeout, maxTimeout)
	case l.Run == "":
		return errors.New("a batch needs a run ID")
	case len(l.Path) == 0 || l.Path[0] != '/':
		return fmt.Errorf("path %q does not begin with a slash", l.Path)
	}
	switch l.Method {
	case http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodHead:
		return nil
	}
	return fmt.Errorf("method %q is not one that the lab sends", l.Method)
}

// Even raises the count, and lowers the concurrency, so that each connection sends equally many: fortio lets its first
// connection send what is left over, one after the other (periodic.Run).
func (l Load) Even() Load {
	each := (l.Count + l.Concurrency - 1) / l.Concurrency
	l.Concurrency = (l.Count + each - 1) / each
	l.Count = min(each*l.Concurrency, MaxCount)
	return l
}

// deadline is the longest that a well-behaved batch can take, with time for starting.
func (l Load) deadline() time.Duration {
	rounds := (l.Count + l.Concurrency - 1) / l.Concurrency
	atRate := time.Duration(float64(l.Count) / l.Rate * float64(time.Second))
	return min(atRate+time.Duration(rounds)*l.Timeout, 15*time.Minute) + 30*time.Second
}

// Reply is what became of one request.
type Reply struct {
	// At is when it was sent, by the caller's clock.
	At time.Time `json:"at"`
	// Latency is until the response was read whole, or the failure noticed.
	Latency time.Duration `json:"latencyNanoseconds"`
	// Status is the HTTP status, or NoAnswer.
	Status int `json:"status"`
	// By names who answered, where the caller could tell.
	By string `json:"by,omitempty"`
}

// Batch is what became of a Load.
type Batch struct {
	Load    Load
	Replies []Reply
	// Errors are the distinct words in which the caller reported failed connections.
	Errors []string
	// Command is what a learner would type to send a request of the batch.
	Command string
	// Pod is the pod that sent it or, for the gateway, took it in; it tells a restart in between.
	Pod string
}

// Answer is one response with its headers and the beginning of its body.
type Answer struct {
	Reply
	Header http.Header
	Body   string
	// Error is why there was no answer, as the caller reports it.
	Error string
}

// Sender is a caller: a client with an identity that sends requests to appb.
type Sender interface {
	// Send sends a batch and passes each reply to each, if that is not nil, as soon as it is known, from one goroutine
	// at a time. An error means that nothing can be said of the batch; requests that failed are replies.
	Send(ctx context.Context, load Load, each func(Reply)) (Batch, error)
	// Once sends one request of the load and keeps headers and body.
	Once(ctx context.Context, load Load) (Answer, error)
}

// Pod is what the proofs know of a pod.
type Pod struct {
	Name, UID, IP, Node, ServiceAccount string
	// Restarts counts container restarts, all containers together.
	Restarts int
	Ready    bool
	Labels   map[string]string
	// Annotations matter for ambient.istio.io/redirection.
	Annotations map[string]string
}

// Incarnation names this very life of the pod: it changes when the pod is replaced or a container restarts.
func (p Pod) Incarnation() string { return fmt.Sprintf("%s/%s/%d", p.Name, p.UID, p.Restarts) }
