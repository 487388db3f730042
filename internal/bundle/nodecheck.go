package bundle

import (
	"context"
	"errors"
	"strings"
)

// missing asks a node's containerd which of the images it lacks: those it does not
// have under their names, with their digests, and complete.
func (l *loading) missing(ctx context.Context, node string) ([]named, error) {
	out, err := l.command(node, []string{"ctr", "--namespace=k8s.io", "images", "check"}, nil).run(ctx)
	var failed *commandError
	// The check fails as a whole when it cannot tell of some image, of any image,
	// whether it is unpacked; what it did print stands.
	if errors.As(err, &failed) && strings.HasPrefix(out, "REF") {
		err = nil
	}
	if err != nil {
		return nil, err
	}
	have := parseCheck(out)
	var missing []named
	for _, image := range l.images {
		complete := true
		for _, name := range image.names {
			complete = complete && have[name] == image.Digest.String()
		}
		if !complete {
			missing = append(missing, image)
		}
	}
	return missing, nil
}

// parseCheck reads the table of `ctr images check`: the digests of the images whose
// content is all there, by name.
func parseCheck(table string) map[string]string {
	have := map[string]string{}
	for line := range strings.Lines(table) {
		// REF TYPE DIGEST STATUS (PRESENT/REQUIRED) SIZE UNPACKED
		fields := strings.Fields(line)
		if len(fields) >= 4 && fields[3] == "complete" {
			have[fields[0]] = fields[2]
		}
	}
	return have
}

// snapshotter is the one that the node's kubelet uses, as containerd's configuration
// says; kind sets another one than the default where Docker runs without root.
func (l *loading) snapshotter(ctx context.Context, node string) (string, error) {
	config, err := l.command(node, []string{"containerd", "config", "dump"}, nil).run(ctx)
	if err != nil {
		return "", err
	}
	return parseSnapshotter(config), nil
}

// parseSnapshotter finds the first snapshotter that a configuration sets; containerd's
// default is overlayfs.
func parseSnapshotter(config string) string {
	for line := range strings.Lines(config) {
		key, value, _ := strings.Cut(line, "=")
		if name := strings.Trim(strings.TrimSpace(value), `'"`); strings.TrimSpace(key) == "snapshotter" && name != "" {
			return name
		}
	}
	return "overlayfs"
}
