package bundle

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/moby/moby/client"
)

// fakeNodes is a Docker API whose containers have nothing but a ctr.
type fakeNodes struct {
	t     testing.TB
	nodes map[string]*fakeNode

	mu    sync.Mutex
	execs map[string]*fakeExec
}

// fakeNode is one node: what its containerd holds, and how it behaves.
type fakeNode struct {
	// during, if set, is called with the number of blobs that an import has read so far; its error ends the import.
	during func(blobs int) error
	// checking, if set, is called before the node says what it has.
	checking func()
	// checked, if set, is called with the number of images after the node has said what it has.
	checked func(images int)
	// forgetful nodes take an import and keep nothing.
	forgetful bool

	mu      sync.Mutex
	images  map[string]string // digest by name
	blobs   map[string]bool
	imports [][]string
}

type fakeExec struct {
	node    *fakeNode
	args    []string
	running bool
	polls   int
	code    int
}

func newFakeNodes(t testing.TB, names ...string) *fakeNodes {
	f := &fakeNodes{t: t, nodes: map[string]*fakeNode{}, execs: map[string]*fakeExec{}}
	for _, name := range names {
		f.nodes[name] = &fakeNode{images: map[string]string{}, blobs: map[string]bool{}}
	}
	return f
}

func (f *fakeNodes) ExecCreate(
	_ context.Context, node string, options client.ExecCreateOptions,
) (client.ExecCreateResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n, ok := f.nodes[node]
	if !ok {
		return client.ExecCreateResult{}, fmt.Errorf("No such container: %s", node)
	}
	id := fmt.Sprint(len(f.execs))
	f.execs[id] = &fakeExec{node: n, args: options.Cmd, running: true}
	return client.ExecCreateResult{ID: id}, nil
}

func (f *fakeNodes) ExecAttach(
	_ context.Context, id string, _ client.ExecAttachOptions,
) (client.ExecAttachResult, error) {
	f.mu.Lock()
	e := f.execs[id]
	f.mu.Unlock()
	ours, theirs, err := connect()
	if err != nil {
		return client.ExecAttachResult{}, err
	}
	go func() {
		code := e.node.run(e.args, theirs, frames{theirs, 1}, frames{theirs, 2})
		f.mu.Lock()
		e.code = code
		f.mu.Unlock()
		theirs.Close()
	}()
	return client.ExecAttachResult{HijackedResponse: client.NewHijackedResponse(ours, "")}, nil
}

// ExecInspect says once that the command still runs, as Docker does when the output ends before the exit was recorded.
func (f *fakeNodes) ExecInspect(
	_ context.Context, id string, _ client.ExecInspectOptions,
) (client.ExecInspectResult, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.execs[id]
	e.polls++
	if e.polls == 1 {
		return client.ExecInspectResult{Running: true}, nil
	}
	return client.ExecInspectResult{ExitCode: e.code}, nil
}

// connect gives both ends of a connection that can be closed for writing only.
func connect() (net.Conn, net.Conn, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer listener.Close()
	ours, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	theirs, err := listener.Accept()
	return ours, theirs, err
}

// frames writes one of Docker's multiplexed streams.
type frames struct {
	w      io.Writer
	stream byte
}

func (f frames) Write(p []byte) (int, error) {
	header := [8]byte{f.stream}
	binary.BigEndian.PutUint32(header[4:], uint32(len(p)))
	_, err := f.w.Write(append(header[:], p...))
	return len(p), err
}

func (n *fakeNode) run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	command := strings.Join(args, " ")
	switch {
	case strings.Contains(command, "images check"):
		if n.checking != nil {
			n.checking()
		}
		n.check(stdout)
		if n.checked != nil {
			n.checked(len(n.images))
		}
		return 0
	case strings.Contains(command, "images import"):
		n.mu.Lock()
		n.imports = append(n.imports, args)
		n.mu.Unlock()
		if err := n.ingest(stdin); err != nil {
			fmt.Fprintf(stderr, "ctr: %v\n", err)
			return 1
		}
		return 0
	}
	fmt.Fprintf(stderr, "%s: not found\n", args[0])
	return 127
}

func (n *fakeNode) check(stdout io.Writer) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fmt.Fprintln(stdout, "REF TYPE DIGEST STATUS SIZE UNPACKED")
	for name, digest := range n.images {
		fmt.Fprintf(stdout, "%s application/vnd.oci.image.manifest.v1+json %s complete (3/3) 1.0 MiB/1.0 MiB false\n",
			name, digest)
	}
}

// ingest does what containerd does with the tar of an OCI layout.
func (n *fakeNode) ingest(stdin io.Reader) error {
	archive := tar.NewReader(stdin)
	var index v1.IndexManifest
	for blobs := 0; ; {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if header.Name == indexFile {
			if err := json.NewDecoder(archive).Decode(&index); err != nil {
				return err
			}
			continue
		}
		hash := sha256.New()
		if _, err := io.Copy(hash, archive); err != nil {
			return err
		}
		if !strings.HasPrefix(header.Name, "blobs/") {
			continue
		}
		n.mu.Lock()
		n.blobs["sha256:"+hex.EncodeToString(hash.Sum(nil))] = true
		n.mu.Unlock()
		blobs++
		if n.during != nil {
			if err := n.during(blobs); err != nil {
				return err
			}
		}
	}
	if index.SchemaVersion == 0 {
		return errors.New("missing index.json in OCI layout 1.0.0")
	}
	if n.forgetful {
		return nil
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, m := range index.Manifests {
		if !n.blobs[m.Digest.String()] {
			return fmt.Errorf("content digest %s: not found", m.Digest)
		}
		n.images[m.Annotations[AnnotationContainerd]] = m.Digest.String()
	}
	return nil
}
