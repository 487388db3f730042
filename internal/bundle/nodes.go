package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"ambientlab/internal/docker"
	"ambientlab/internal/problem"
)

// NodeReport is the result of loading images into one node.
type NodeReport struct {
	Node string
	// Held are the references that the node had before, with the same digest. Loaded are those that it got, Replaced
	// those of them that it had before with another digest: containers that run go on running the old image.
	Held, Loaded, Replaced []string
	// Sent is how many bytes of blobs were sent.
	Sent int64
	// Err is why the node failed, or nil.
	Err error
}

// named is an image with its names in containerd.
type named struct {
	entry
	names []string
	// replaces says that the node has another image under one of the names.
	replaces bool
}

// LoadNodes loads images into the containerd of kind nodes, given as names or IDs of their containers, all nodes side
// by side. It writes nothing to the disk of this machine, and sends a node only the blobs that it lacks. A node that
// fails or is slow does not affect the others. The error holds one problem ImageLoadFailed for each node that failed.
//
// kind has an image loader too (sigs.k8s.io/kind/pkg/cluster/nodeutils). It needs the images as an archive on disk,
// sends each node everything, and has each node unpack every image. `make bench` compares the two.
func LoadNodes(ctx context.Context, api docker.Execer, b *Bundle, refs, nodes []string) ([]NodeReport, error) {
	images, err := b.named(refs)
	if err != nil {
		return nil, err
	}
	reports := make([]NodeReport, len(nodes))
	var group sync.WaitGroup
	for i, node := range nodes {
		group.Go(func() { reports[i] = b.loadNode(ctx, api, node, images) })
	}
	group.Wait()
	var failures []error
	corrupt := false
	for _, r := range reports {
		// A damaged bundle is one problem, and not one for each node.
		damage := problem.Is(r.Err, problem.BundleCorrupt)
		if r.Err != nil && !(damage && corrupt) {
			failures = append(failures, r.Err)
		}
		corrupt = corrupt || damage
	}
	return reports, errors.Join(failures...)
}

// MissingInNodes returns, by node, the references of the images that LoadNodes would load. It changes nothing.
func MissingInNodes(
	ctx context.Context, api docker.Execer, b *Bundle, refs, nodes []string,
) (map[string][]string, error) {
	images, err := b.named(refs)
	if err != nil {
		return nil, err
	}
	missing := make([][]named, len(nodes))
	failures := make([]error, len(nodes))
	var group sync.WaitGroup
	for i, node := range nodes {
		group.Go(func() { missing[i], failures[i] = missingIn(ctx, api, node, images) })
	}
	group.Wait()
	out := map[string][]string{}
	for i, node := range nodes {
		out[node] = refsOf(missing[i])
	}
	return out, errors.Join(failures...)
}

// named finds the images of the references, each once.
func (b *Bundle) named(refs []string) ([]named, error) {
	var out []named
	var failures []error
	for _, ref := range refs {
		e, err := b.find(ref)
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
			i = len(out)
			out = append(out, named{entry: e, names: []string{e.Ref}})
		}
		// The kubelet asks for repository@digest if the image of a pod has a digest.
		if name := parsed.Repository + "@" + parsed.Digest.String(); parsed.Digest != (v1.Hash{}) &&
			!slices.Contains(out[i].names, name) {
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

func (b *Bundle) loadNode(ctx context.Context, api docker.Execer, node string, images []named) NodeReport {
	report := NodeReport{Node: node}
	missing, err := missingIn(ctx, api, node, images)
	if err == nil {
		held := slices.DeleteFunc(slices.Clone(images), func(n named) bool {
			return slices.ContainsFunc(missing, func(m named) bool { return m.Ref == n.Ref })
		})
		report.Held = refsOf(held)
		if len(missing) > 0 {
			err = b.importInto(ctx, api, node, missing, held, &report)
		}
	}
	switch {
	case problem.Is(err, problem.BundleCorrupt):
		report.Err = err
	case err != nil:
		report.Err = problem.New(problem.ImageLoadFailed, err, "loading images into node %s", node)
	}
	return report
}

// importInto sends the missing images to a node and checks that the node has them afterwards.
func (b *Bundle) importInto(
	ctx context.Context, api docker.Execer, node string, missing, held []named, report *NodeReport,
) error {
	archive := func(w io.Writer) error { return b.writeArchive(ctx, w, missing, held, &report.Sent) }
	// --local: without it, ctr streams the archive to containerd's transfer service in small messages and waits for
	// each answer (github.com/containerd/containerd/v2/cmd/ctr/commands/images/import.go), which costs CPU time.
	// --no-unpack: containerd unpacks an image when a pod first needs it, and most images run on one node only.
	_, err := docker.ExecInput(ctx, api, node, archive,
		"ctr", "--namespace=k8s.io", "images", "import", "--local", "--all-platforms", "--no-unpack", "-")
	if err != nil {
		return err
	}
	left, err := missingIn(ctx, api, node, missing)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return fmt.Errorf("its containerd imported the images without an error, but lacks %s",
			strings.Join(refsOf(left), ", "))
	}
	report.Loaded = refsOf(missing)
	report.Replaced = refsOf(slices.DeleteFunc(slices.Clone(missing), func(n named) bool { return !n.replaces }))
	return nil
}

// missingIn asks the containerd of a node which of the images it lacks: those that it does not have complete, with
// their digests, under all of their names.
func missingIn(ctx context.Context, api docker.Execer, node string, images []named) ([]named, error) {
	table, err := docker.Exec(ctx, api, node, "ctr", "--namespace=k8s.io", "images", "check")
	var failed *docker.ExecError
	// The check fails if ctr cannot tell of any one image whether it is unpacked. The table is complete even then.
	if errors.As(err, &failed) && strings.HasPrefix(table, "REF") {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	complete := parseCheck(table)
	var missing []named
	for _, image := range images {
		lacks := false
		for _, name := range image.names {
			has := complete[name]
			lacks = lacks || has != image.Digest.String()
			image.replaces = image.replaces || has != "" && has != image.Digest.String()
		}
		if lacks {
			missing = append(missing, image)
		}
	}
	return missing, nil
}

// parseCheck reads the table of `ctr images check` and returns the digests of complete images by name.
func parseCheck(table string) map[string]string {
	complete := map[string]string{}
	for line := range strings.Lines(table) {
		// REF TYPE DIGEST STATUS (PRESENT/REQUIRED) SIZE UNPACKED
		fields := strings.Fields(line)
		if len(fields) >= 4 && fields[3] == "complete" {
			complete[fields[0]] = fields[2]
		}
	}
	return complete
}
