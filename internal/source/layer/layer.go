// Package layer makes image layers whose bytes depend on their content alone.
//
// A layer is a tar, read from the files it is made of each time it is asked for; [Gzip] compresses it once.
package layer

import (
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Epoch is the time of everything in a layer and of every image: there is no honest one that would stay the
// same from build to build.
var Epoch = time.Unix(0, 0).UTC()

// File is one file, folder or link of a layer.
type File struct {
	// Path is absolute inside the image.
	Path string
	// Mode holds the permission bits; 0o644 for files and 0o755 for folders unless given.
	Mode int64
	UID  int
	GID  int
	// Source is the file on disk that holds the content; it must not change while the layer is in use.
	Source string
	// Data is the content where there is no Source.
	Data []byte
	// Link makes it a symbolic link to this target.
	Link string
	// Dir makes it a folder.
	Dir bool
}

// FromFiles makes a layer of files, in the order of their paths, with the folders above them.
func FromFiles(files []File) (v1.Layer, error) {
	entries := map[string]File{}
	for _, f := range files {
		name := strings.TrimPrefix(path.Clean("/"+f.Path), "/")
		if name == "" {
			return nil, fmt.Errorf("a file without a path")
		}
		if _, twice := entries[name]; twice && !f.Dir {
			return nil, fmt.Errorf("%s is there twice", f.Path)
		}
		entries[name] = f
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if _, ok := entries[dir]; !ok {
				entries[dir] = File{Path: dir, Dir: true}
			}
		}
	}
	names := make([]string, 0, len(entries))
	for name := range entries {
		names = append(names, name)
	}
	slices.Sort(names)
	l := &fileLayer{}
	for _, name := range names {
		p, err := newPart(name, entries[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		l.parts = append(l.parts, p)
	}
	// Two blocks of zeros end a tar.
	l.parts = append(l.parts, part{header: make([]byte, 1024)})
	return l, nil
}

// FromTar makes a layer of a tar on disk, as it is; it must not change while the layer is in use.
func FromTar(name string) (v1.Layer, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	return &fileLayer{parts: []part{{source: name, size: info.Size()}}}, nil
}

// fileLayer implements v1.Layer. Stored uncompressed, its digest and its diff ID are one.
type fileLayer struct {
	parts []part

	mu     sync.Mutex
	digest v1.Hash
}

// Digest implements v1.Layer; the first call reads every file.
func (l *fileLayer) Digest() (v1.Hash, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.digest != (v1.Hash{}) {
		return l.digest, nil
	}
	r, err := l.Uncompressed()
	if err != nil {
		return v1.Hash{}, err
	}
	digest, _, err := v1.SHA256(r)
	if err != nil {
		return v1.Hash{}, fmt.Errorf("hashing a layer: %w", err)
	}
	l.digest = digest
	return digest, nil
}

// DiffID implements v1.Layer.
func (l *fileLayer) DiffID() (v1.Hash, error) { return l.Digest() }

// Size implements v1.Layer.
func (l *fileLayer) Size() (int64, error) {
	var size int64
	for _, p := range l.parts {
		size += int64(len(p.header)) + p.size + p.padding()
	}
	return size, nil
}

// MediaType implements v1.Layer.
func (l *fileLayer) MediaType() (types.MediaType, error) { return types.OCIUncompressedLayer, nil }

// Compressed implements v1.Layer.
func (l *fileLayer) Compressed() (io.ReadCloser, error) { return l.Uncompressed() }

// Uncompressed implements v1.Layer.
func (l *fileLayer) Uncompressed() (io.ReadCloser, error) {
	return newReader(l.parts), nil
}
