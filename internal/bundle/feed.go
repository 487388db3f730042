package bundle

import (
	"errors"
	"io"
	"sync"
)

// feed hands what is read once to many readers, each at its own pace within a window.
//
// The window is what keeps memory bounded; what keeps a slow reader from holding the
// others up is that the feed lets go of it: when it is a whole window behind while
// another reader has nothing left to read. It then has to read for itself.
type feed struct {
	mu      sync.Mutex
	changed *sync.Cond
	// chunks are those with the numbers base, base+1 and so on.
	chunks []chunk
	base   int
	// held and window are bytes: what the chunks hold and may hold.
	held, window int64
	readers      map[*reader]struct{}
	ended        bool
	err          error
}

// chunk is a piece of a blob. It is never written to after it was pushed.
type chunk struct {
	blob int // number of the blob in the order in which blobs are fed
	data []byte
	// last, with no data, says that the blob was read to its end and is what its digest
	// says.
	last bool
}

// reader is one reader of a feed.
type reader struct {
	feed *feed
	next int // number of the chunk that it takes next
	lost bool
}

var (
	// errLost tells a reader that the feed has let go of it.
	errLost = errors.New("the reader is a whole window behind the others")
	// errNobody tells the feeding side that no reader is left.
	errNobody = errors.New("nobody reads any more")
)

// newFeed makes a feed that holds at most window bytes, or one chunk, with its readers.
func newFeed(window int64, readers int) (*feed, []*reader) {
	f := &feed{window: window, readers: map[*reader]struct{}{}}
	f.changed = sync.NewCond(&f.mu)
	out := make([]*reader, readers)
	for i := range out {
		out[i] = &reader{feed: f}
		f.readers[out[i]] = struct{}{}
	}
	return f, out
}

// push adds a chunk, waiting for room.
func (f *feed) push(c chunk) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		if len(f.readers) == 0 {
			return errNobody
		}
		f.drop()
		if len(f.chunks) == 0 || f.held+int64(len(c.data)) <= f.window {
			f.chunks = append(f.chunks, c)
			f.held += int64(len(c.data))
			f.changed.Broadcast()
			return nil
		}
		if !f.shed() {
			f.changed.Wait()
		}
	}
}

// drop forgets the chunks that every reader has taken.
func (f *feed) drop() {
	first := f.base + len(f.chunks)
	for r := range f.readers {
		first = min(first, r.next)
	}
	for _, c := range f.chunks[:first-f.base] {
		f.held -= int64(len(c.data))
	}
	f.chunks = f.chunks[first-f.base:]
	f.base = first
}

// shed lets go of the readers that stand at the very start of a full window, if some
// other reader has taken all of it. It tells whether it did.
func (f *feed) shed() bool {
	starving := false
	for r := range f.readers {
		starving = starving || r.next == f.base+len(f.chunks)
	}
	if !starving {
		return false
	}
	for r := range f.readers {
		if r.next == f.base {
			r.lost = true
			delete(f.readers, r)
		}
	}
	f.changed.Broadcast()
	return true
}

// end says that nothing more comes, because of err if it is not nil.
func (f *feed) end(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ended, f.err = true, err
	f.changed.Broadcast()
}

// take gives the next chunk; io.EOF at the end, errLost once the feed has let go.
func (r *reader) take() (chunk, error) {
	f := r.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case r.lost:
			return chunk{}, errLost
		case r.next < f.base+len(f.chunks):
			c := f.chunks[r.next-f.base]
			r.next++
			f.changed.Broadcast()
			return c, nil
		case f.ended && f.err != nil:
			return chunk{}, f.err
		case f.ended:
			return chunk{}, io.EOF
		}
		f.changed.Wait()
	}
}

// leave takes a reader off the feed, so that nobody waits for it.
func (r *reader) leave() {
	f := r.feed
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.readers, r)
	r.lost = true
	f.changed.Broadcast()
}
