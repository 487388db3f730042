package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ambientlab/internal/problem"
)

// Loader brings images of a bundle into the containerd of kind nodes, all nodes at
// once. The bundle is read once for all of them, and nothing is written to disk on
// this side. Its fields are set before Load and not changed afterwards.
type Loader struct {
	Docker NodeEngine
	Bundle *Bundle
	// Unpack makes every node unpack every image right away, as `kind load` does.
	// Without it a node unpacks an image when it first runs it, which containerd's CRI
	// does by itself; as most images run on one node only, that is most of the work saved.
	Unpack bool
	// Progress, if set, is told of each node that has ended. It is called by one
	// goroutine at a time.
	Progress func(NodeReport)
	// Clock is the source of time; nil is the machine's.
	Clock Clock
	// Window is how many bytes a slow node may be behind before it has to read the
	// bundle for itself; 0 means DefaultWindow.
	Window int64
}

// DefaultWindow is enough for a node's hiccups and small beside the images.
const DefaultWindow = 32 << 20

// chunkSize is the piece in which blobs are handed on.
const chunkSize = 256 << 10

// patience is how long the others wait for a node that does not say what it has.
const patience = 5 * time.Second

// Report is what became of a Load.
type Report struct {
	// Nodes are in the order in which they were given.
	Nodes []NodeReport `json:"nodes"`
	// Read is how many bytes of blobs were read from the bundle for all nodes together.
	Read int64 `json:"read"`
	// Duration is the time until the last node ended.
	Duration time.Duration `json:"duration"`
}

// NodeReport is what became of one node.
type NodeReport struct {
	Node string `json:"node"`
	// Held are the references that the node had already, by digest, Loaded those it got.
	Held   []string `json:"held,omitempty"`
	Loaded []string `json:"loaded,omitempty"`
	// Sent is how many bytes of blobs were sent.
	Sent     int64         `json:"sent"`
	Duration time.Duration `json:"duration"`
	// Err is why the node failed, or nil.
	Err error `json:"-"`
}

// LoadNodes loads images into nodes, given as names or IDs of their containers, with a
// Loader as it is without further choices.
func LoadNodes(ctx context.Context, docker NodeEngine, b *Bundle, refs, nodes []string) (Report, error) {
	return Loader{Docker: docker, Bundle: b}.Load(ctx, refs, nodes)
}

// Load loads images into nodes. What a node has already, by digest and complete, it is
// not sent again. A node that fails or lags does not keep the others from finishing;
// the error holds one problem ImageLoadFailed for each that failed, naming the node and
// saying what its containerd said.
func (l Loader) Load(ctx context.Context, refs, nodes []string) (Report, error) {
	images, err := l.images(refs)
	if err != nil {
		return Report{}, err
	}
	clock := clockOr(l.Clock)
	started := clock.Now()
	run := &loading{
		Loader: l, clock: clock, images: images, order: orderOf(images),
		plans: make(chan plan), reports: make([]NodeReport, len(nodes)),
	}
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() { run.node(ctx, i, node) })
	}
	readErr := run.distribute(ctx, len(nodes))
	wg.Wait()

	report := Report{Nodes: run.reports, Read: run.read.Load(), Duration: clock.Now().Sub(started)}
	failures := []error{readErr}
	for _, r := range report.Nodes {
		// A bundle that cannot be read is one failure, not one for each node.
		if r.Err != nil && (readErr == nil || !errors.Is(r.Err, readErr)) {
			failures = append(failures, r.Err)
		}
	}
	return report, errors.Join(failures...)
}

// Missing tells, for each node, which of the images it lacks. It is what Load would
// load, and changes nothing.
func (l Loader) Missing(ctx context.Context, refs, nodes []string) (map[string][]string, error) {
	images, err := l.images(refs)
	if err != nil {
		return nil, err
	}
	run := &loading{Loader: l, clock: clockOr(l.Clock), images: images}
	missing := make([][]named, len(nodes))
	failures := make([]error, len(nodes))
	var wg sync.WaitGroup
	for i, node := range nodes {
		wg.Go(func() { missing[i], failures[i] = run.missing(ctx, node) })
	}
	wg.Wait()
	out := map[string][]string{}
	for i, node := range nodes {
		out[node] = refsOf(missing[i])
	}
	return out, errors.Join(failures...)
}

// images finds the images in the bundle, each once, with the names they must have.
func (l Loader) images(refs []string) ([]named, error) {
	var out []named
	var failures []error
	for _, ref := range refs {
		e, err := l.Bundle.find(ref)
		if err != nil {
			failures = append(failures, err)
			continue
		}
		parsed, err := ParseReference(ref)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(out, func(n named) bool { return n.Ref == e.Ref })
		if i < 0 {
			out = append(out, named{entry: e, names: []string{e.Ref}})
			i = len(out) - 1
		}
		// The kubelet asks for repository@digest where a pod's image has a digest.
		if name := parsed.Repository + "@" + parsed.Digest.String(); parsed.Digest != (v1.Hash{}) && !slices.Contains(out[i].names, name) {
			out[i].names = append(out[i].names, name)
		}
	}
	return out, errors.Join(failures...)
}

func refsOf(images []named) []string {
	var out []string
	for _, image := range images {
		out = append(out, image.Ref)
	}
	return out
}

// loading is one run of a Loader.
type loading struct {
	Loader
	clock   Clock
	images  []named
	order   map[v1.Hash]int
	plans   chan plan
	read    atomic.Int64
	mu      sync.Mutex // guards Progress
	reports []NodeReport
}

// plan is what a node needs. granted answers with its place at the shared feed, or nil
// where it has to read for itself.
type plan struct {
	shipment shipment
	granted  chan<- *reader
}

// node does all that is to be done for one node.
func (l *loading) node(ctx context.Context, i int, node string) {
	started := l.clock.Now()
	report := NodeReport{Node: node}
	err := l.serve(ctx, node, &report)
	if err != nil {
		report.Err = problem.New(problem.ImageLoadFailed, err, "loading images into node %s", node)
	}
	report.Duration = l.clock.Now().Sub(started)
	l.reports[i] = report
	if l.Progress != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.Progress(report)
	}
}

func (l *loading) serve(ctx context.Context, node string, report *NodeReport) error {
	granted := make(chan *reader, 1)
	images, err := l.missing(ctx, node)
	s, packErr := packShipment(images, l.order)
	s.leaveOut(l.held(images))
	if err = errors.Join(err, packErr); err != nil {
		s = shipment{}
	}
	// Also a node that needs nothing says so: the others wait for its word.
	select {
	case l.plans <- plan{shipment: s, granted: granted}:
	case <-ctx.Done():
		return errors.Join(err, context.Cause(ctx))
	}
	place := <-granted
	if place != nil {
		defer place.leave()
	}
	if err != nil {
		return err
	}
	report.Held = refsOf(l.held(images))
	if len(images) == 0 {
		return nil
	}
	return l.ship(ctx, node, images, s, place, report)
}

// ship sends the shipment and sees to it that the node has it afterwards.
func (l *loading) ship(ctx context.Context, node string, images []named, s shipment, place *reader, report *NodeReport) error {
	// Without --local, containerd 2's ctr hands the archive on in small acknowledged
	// messages, which costs more than twice the CPU time of all the rest.
	args := []string{"ctr", "--namespace=k8s.io", "images", "import", "--local", "--all-platforms"}
	if l.Unpack {
		snapshotter, err := l.snapshotter(ctx, node)
		if err != nil {
			return err
		}
		args = append(args, "--snapshotter="+snapshotter)
	} else {
		args = append(args, "--no-unpack")
	}
	input := func(w io.Writer) error {
		return s.write(w, func(w io.Writer, d v1.Descriptor) error {
			counted := &countingWriter{w: w}
			defer func() { report.Sent += counted.n }()
			return l.content(ctx, counted, d, place)
		})
	}
	if _, err := l.command(node, append(args, "-"), input).run(ctx); err != nil {
		return err
	}
	left, err := l.missing(ctx, node)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("its containerd took the images without an error, but lacks %s", strings.Join(refsOf(left), ", "))
	}
	report.Loaded = refsOf(images)
	return nil
}

// held are the images other than the missing ones.
func (l *loading) held(missing []named) []named {
	return slices.DeleteFunc(slices.Clone(l.images), func(n named) bool {
		return slices.ContainsFunc(missing, func(m named) bool { return m.Ref == n.Ref })
	})
}

func (l *loading) command(node string, args []string, input func(io.Writer) error) command {
	return command{docker: l.Docker, clock: l.clock, node: node, args: args, input: input}
}
