package bundle

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"slices"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// distribute waits for the nodes' plans and reads the bundle once for all of them. A
// node whose plan comes too late reads for itself. The error is that of the reading.
func (l *loading) distribute(ctx context.Context, nodes int) error {
	plans := l.gather(ctx, nodes)
	late := nodes - len(plans)
	readers := 0
	for _, p := range plans {
		if len(p.shipment.blobs) > 0 {
			readers++
		}
	}
	window := l.Window
	if window == 0 {
		window = DefaultWindow
	}
	f, places := newFeed(window, readers)
	for _, p := range plans {
		if len(p.shipment.blobs) == 0 {
			p.granted <- nil
			continue
		}
		p.granted <- places[0]
		places = places[1:]
	}
	fed := make(chan error, 1)
	go func() {
		err := l.feed(ctx, f, union(plans, l.order))
		f.end(err)
		fed <- err
	}()
	for range late {
		select {
		case p := <-l.plans:
			p.granted <- nil
		case <-ctx.Done():
			// A node may be handing its plan in at this moment; it looks at ctx too.
		}
	}
	return <-fed
}

// gather collects the nodes' plans until all are in, or until those that are have
// waited long enough.
func (l *loading) gather(ctx context.Context, nodes int) []plan {
	var plans []plan
	impatient := make(chan struct{})
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	for len(plans) < nodes {
		select {
		case p := <-l.plans:
			if plans = append(plans, p); len(plans) == 1 {
				go func() {
					if l.clock.Sleep(waiting, patience) == nil {
						close(impatient)
					}
				}()
			}
		case <-impatient:
			return plans
		case <-ctx.Done():
			return plans
		}
	}
	return plans
}

// orderOf numbers the blobs of images, each once.
func orderOf(images []named) map[v1.Hash]int {
	order := map[v1.Hash]int{}
	for _, image := range images {
		for _, d := range image.blobs {
			if _, ok := order[d.Digest]; !ok {
				order[d.Digest] = len(order)
			}
		}
	}
	return order
}

// union lists the blobs of all plans, each once, in their order.
func union(plans []plan, order map[v1.Hash]int) []v1.Descriptor {
	all := map[v1.Hash]v1.Descriptor{}
	for _, p := range plans {
		for _, d := range p.shipment.blobs {
			all[d.Digest] = d
		}
	}
	return slices.SortedFunc(maps.Values(all), func(a, b v1.Descriptor) int {
		return cmp.Compare(order[a.Digest], order[b.Digest])
	})
}

// feed reads the blobs and pushes them, piece by piece.
func (l *loading) feed(ctx context.Context, f *feed, blobs []v1.Descriptor) error {
	for _, d := range blobs {
		number := l.order[d.Digest]
		err := l.readBlob(ctx, d, func(piece []byte) error { return f.push(chunk{blob: number, data: piece}) })
		if err == nil {
			err = f.push(chunk{blob: number, last: true})
		}
		if errors.Is(err, errNobody) {
			return nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// readBlob reads a blob and hands it over in pieces, which the receiver may keep. It
// ends with an error if the blob is not what its digest says.
func (l *loading) readBlob(ctx context.Context, d v1.Descriptor, hand func([]byte) error) error {
	r, err := l.Bundle.blob(d)
	if err != nil {
		return err
	}
	defer r.Close()
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		piece := make([]byte, min(chunkSize, d.Size+1))
		n, err := io.ReadFull(r, piece)
		l.read.Add(int64(n))
		if n > 0 {
			if err := hand(piece[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// content writes one blob to a node: from the shared feed while the node keeps up,
// read for the node alone from then on.
func (l *loading) content(ctx context.Context, w *countingWriter, d v1.Descriptor, place *reader) error {
	before := w.n
	if place != nil {
		err := l.copyBlob(w, d, place)
		if !errors.Is(err, errLost) {
			return err
		}
	}
	skip := w.n - before
	return l.readBlob(ctx, d, func(piece []byte) error {
		passed := min(skip, int64(len(piece)))
		skip -= passed
		_, err := w.Write(piece[passed:])
		return err
	})
}

// copyBlob writes a blob's pieces as they come in the feed, passing over the blobs
// that the node does not need.
func (l *loading) copyBlob(w io.Writer, d v1.Descriptor, place *reader) error {
	want := l.order[d.Digest]
	for {
		c, err := place.take()
		switch {
		case err != nil:
			return err
		case c.blob != want:
			continue
		case c.last:
			return nil
		}
		if _, err := w.Write(c.data); err != nil {
			return err
		}
	}
}

// countingWriter counts what passes.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
