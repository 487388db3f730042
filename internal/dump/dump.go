// Package dump writes what helps to find the cause of a failure into one zip: parts that are collected side by side
// within a time limit, with their secrets removed, and a page that shows the most important of it. What could not be
// collected is listed with the reason.
package dump

import (
	"archive/zip"
	"bytes"
	"cmp"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"ambientlab/internal/record"
	"ambientlab/internal/redact"
	"ambientlab/internal/ui"
)

// The limits of a dump. Collecting may take three quarters of Budget; the rest is for compressing.
const (
	Budget = 20 * time.Second
	// Limit is the size of the zip in bytes.
	Limit = 20 << 20
	// fileLimit is how much of one file is kept, and allLimit how much of all together, before compression.
	fileLimit = 1 << 20
	allLimit  = 96 << 20
)

// Part is something that is collected. Several parts are collected at once.
type Part struct {
	// Name is for people, such as "logs of the pods".
	Name string
	// Collect calls add for each file, whose name is a path in the zip. It may have added some when it fails.
	Collect func(ctx context.Context, add Add) error
}

// Add adds a file to a dump. A long text is cut: its end is kept.
type Add func(name string, content []byte)

// Missing is a part, or a file of it, that could not be collected.
type Missing struct{ Part, Why string }

// File is one file of a dump.
type File struct {
	Name    string
	Content []byte
}

// Contents is what was collected, without secrets.
type Contents struct {
	Run     record.Run
	Files   []File
	Missing []Missing
	Took    time.Duration
	// Secrets removes secrets from the texts of the run.
	Secrets *redact.Redactor
}

// collection is what is collected until the time is up.
type collection struct {
	secrets *redact.Redactor

	mu      sync.Mutex
	closed  bool
	size    int
	files   map[string][]byte
	missing []Missing
}

// Collect collects parts until they have ended or most of budget is over. It never fails: what is missing is listed.
func Collect(
	ctx context.Context, run record.Run, parts []Part, secrets *redact.Redactor, budget time.Duration,
) Contents {
	began := time.Now()
	limit := budget * 3 / 4
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it took longer than %s", limit))
	defer cancel()
	c := &collection{secrets: secrets, files: map[string][]byte{}}
	ended := make(chan int, len(parts))
	for i, part := range parts {
		go func() {
			defer func() { ended <- i }()
			defer func() {
				if p := recover(); p != nil {
					c.miss(part.Name, fmt.Sprintf("panic: %v", p))
				}
			}()
			if err := part.Collect(ctx, c.add); err != nil {
				for _, each := range ui.Branches(err) {
					c.miss(part.Name, each.Error())
				}
			}
		}()
	}
	waiting := map[int]bool{}
	for i := range parts {
		waiting[i] = true
	}
	timeUp := ctx.Done()
	var late <-chan time.Time
	for over := false; len(waiting) > 0 && !over; {
		select {
		case i := <-ended:
			delete(waiting, i)
		case <-timeUp:
			// The parts know that the time is up, and need a moment to say what they were waiting for.
			timeUp, late = nil, time.After(budget/20)
		case <-late:
			over = true
		}
	}
	for i := range parts {
		if waiting[i] {
			c.miss(parts[i].Name, "it did not end: "+context.Cause(ctx).Error())
		}
	}
	return c.contents(run, time.Since(began))
}

// contents ends the collection: what a part adds afterwards is dropped.
func (c *collection) contents(run record.Run, took time.Duration) Contents {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	found := Contents{Run: run, Took: took, Missing: c.missing, Secrets: c.secrets}
	for name, content := range c.files {
		found.Files = append(found.Files, File{Name: name, Content: content})
	}
	slices.SortFunc(found.Files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	slices.SortStableFunc(found.Missing, func(a, b Missing) int {
		return cmp.Or(strings.Compare(a.Part, b.Part), strings.Compare(a.Why, b.Why))
	})
	return found
}

func (c *collection) add(name string, content []byte) {
	content = c.secrets.Bytes(end(content, fileLimit))
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
	case c.size+len(content) > allLimit:
		c.missing = append(c.missing, Missing{name, "the dump would be too large"})
	default:
		c.size += len(content)
		c.files[safe(name)] = content
	}
}

func (c *collection) miss(part, why string) {
	why = c.secrets.String(why)
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed && !slices.Contains(c.missing, Missing{part, why}) {
		c.missing = append(c.missing, Missing{part, why})
	}
}

// end gives the last bytes of a text, from the beginning of a line.
func end(content []byte, limit int) []byte {
	if len(content) <= limit {
		return content
	}
	cut := content[len(content)-limit:]
	if line := bytes.IndexByte(cut, '\n'); line >= 0 {
		cut = cut[line+1:]
	}
	return append(fmt.Appendf(nil, "(the first %d bytes are left out)\n", len(content)-len(cut)), cut...)
}

// safe makes a name one that every system can unpack, below the folder of the zip.
func safe(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || strings.ContainsRune(`\:*?"<>|`, r) {
			return '_'
		}
		return r
	}, name)
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

// Names of files that Write adds.
const (
	PageName    = "index.html"
	MissingName = "missing.txt"
)

// Write writes a dump as a zip. The names and the order of its files depend on what is in it alone, so that two dumps
// can be compared. The page and the list of what is missing come first. The largest files for which no room is left
// within limit bytes are left out, and listed.
func Write(w io.Writer, c Contents, limit int) error {
	files := make([]packed, len(c.Files))
	total := 256 << 10 // for the page and the list, which are written last
	for i, file := range c.Files {
		var err error
		if files[i], err = pack(file); err != nil {
			return err
		}
		total += files[i].size()
	}
	bySize := slices.Clone(files)
	slices.SortStableFunc(bySize, func(a, b packed) int { return b.size() - a.size() })
	for _, file := range bySize {
		if total <= limit {
			break
		}
		total -= file.size()
		files = slices.DeleteFunc(files, func(f packed) bool { return f.header.Name == file.header.Name })
		c.Files = slices.DeleteFunc(slices.Clone(c.Files), func(f File) bool { return f.Name == file.header.Name })
		c.Missing = append(c.Missing, Missing{file.header.Name, "the zip would be larger than its limit"})
	}
	page, err := render(c)
	if err != nil {
		return err
	}
	first, err := pack(File{PageName, page})
	if err != nil {
		return err
	}
	second, err := pack(File{MissingName, missingText(c.Missing)})
	if err != nil {
		return err
	}
	archive := zip.NewWriter(w)
	for _, file := range append([]packed{first, second}, files...) {
		into, err := archive.CreateRaw(&file.header)
		if err == nil {
			_, err = into.Write(file.content)
		}
		if err != nil {
			return fmt.Errorf("writing %s: %w", file.header.Name, err)
		}
	}
	if err := archive.Close(); err != nil {
		return fmt.Errorf("writing the zip: %w", err)
	}
	return nil
}

// packed is a file as it is in a zip.
type packed struct {
	header  zip.FileHeader
	content []byte
}

// size is what the file takes in the zip, with its two headers.
func (p packed) size() int { return len(p.content) + 2*len(p.header.Name) + 128 }

func pack(file File) (packed, error) {
	var b bytes.Buffer
	deflate, err := flate.NewWriter(&b, flate.DefaultCompression)
	if err == nil {
		_, err = deflate.Write(file.Content)
		err = errors.Join(err, deflate.Close())
	}
	if err != nil {
		return packed{}, fmt.Errorf("compressing %s: %w", file.Name, err)
	}
	return packed{header: zip.FileHeader{
		Name: file.Name, Method: zip.Deflate, CRC32: crc32.ChecksumIEEE(file.Content),
		CompressedSize64: uint64(b.Len()), UncompressedSize64: uint64(len(file.Content)),
	}, content: b.Bytes()}, nil
}

func missingText(missing []Missing) []byte {
	if len(missing) == 0 {
		return []byte("Nothing is missing.\n")
	}
	var b bytes.Buffer
	for _, m := range missing {
		fmt.Fprintf(&b, "%s: %s\n", m.Part, strings.ReplaceAll(m.Why, "\n", "\n  "))
	}
	return b.Bytes()
}
