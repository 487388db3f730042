package nodeimage

import (
	"context"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"ambientlab/internal/problem"
	"ambientlab/internal/source/layer"
)

//go:embed files
var ownFiles embed.FS

// nodePrograms are the programs that lie in the node itself, each with its path there. The others lie in images.
func nodePrograms() map[string]string {
	return map[string]string{
		"kubelet":                 "usr/bin/kubelet",
		"kubeadm":                 "usr/bin/kubeadm",
		"kubectl":                 "usr/bin/kubectl",
		"containerd":              "usr/local/bin/containerd",
		"containerd-shim-runc-v2": "usr/local/bin/containerd-shim-runc-v2",
		"ctr":                     "usr/local/bin/ctr",
		"cni-ptp":                 "opt/cni/bin/ptp",
		"cni-host-local":          "opt/cni/bin/host-local",
		"cni-portmap":             "opt/cni/bin/portmap",
		"cni-loopback":            "opt/cni/bin/loopback",
	}
}

// nodeEntries are the files of the node's own layer: kind's base files, the lab's few, and the programs.
func nodeEntries(
	ctx context.Context, kindDir string, programs map[string]string, version, pause string,
) ([]layer.File, error) {
	entries, err := kindFiles(kindDir, pause)
	if err != nil {
		return nil, err
	}
	for name, path := range nodePrograms() {
		entries = append(entries, layer.File{Path: path, Mode: 0o755, Source: programs[name]})
	}
	spec, err := criBase(ctx, programs["ctr"])
	if err != nil {
		return nil, err
	}
	own := func(name string) []byte { // A name that is not there is a mistake that the first build shows.
		data, err2 := ownFiles.ReadFile("files/" + name)
		err = errors.Join(err, err2)
		return data
	}
	const units = "etc/systemd/system/"
	entries = append(entries,
		layer.File{Path: "kind", Mode: 0o755, Dir: true},
		layer.File{Path: "kind/bin", Mode: 0o755, Dir: true},
		layer.File{Path: "kind/manifests", Mode: 0o755, Dir: true},
		layer.File{Path: "etc/kubernetes", Mode: 0o755, Dir: true},
		layer.File{Path: "etc/kubernetes/manifests", Mode: 0o755, Dir: true},
		layer.File{Path: "opt/cni", Mode: 0o755, Dir: true},
		layer.File{Path: "opt/cni/bin", Mode: 0o755, Dir: true},
		layer.File{Path: "usr/sbin/init", Link: "/usr/lib/systemd/systemd"},
		// What `systemctl enable` and `mask` would do in kind's Dockerfile.
		layer.File{Path: units + "multi-user.target.wants", Mode: 0o755, Dir: true},
		layer.File{
			Path: units + "multi-user.target.wants/kubelet.service",
			Link: "/etc/systemd/system/kubelet.service",
		},
		layer.File{
			Path: units + "multi-user.target.wants/containerd.service",
			Link: "/etc/systemd/system/containerd.service",
		},
		layer.File{
			Path: units + "multi-user.target.wants/undo-mount-hacks.service",
			Link: "/etc/systemd/system/undo-mount-hacks.service",
		},
		layer.File{Path: units + "systemd-binfmt.service", Link: "/dev/null"},
		layer.File{Path: "etc/systemd/journald.conf.d", Mode: 0o755, Dir: true},
		layer.File{
			Path: "etc/systemd/journald.conf.d/10-kind.conf", Mode: 0o644,
			Data: []byte("[Journal]\nReadKMsg=no\n"),
		},
		layer.File{Path: units + "containerd.service.d", Mode: 0o755, Dir: true},
		layer.File{Path: units + "containerd.service.d/10-oom-score.conf", Mode: 0o644, Data: own("oom-score.conf")},
		layer.File{Path: "kind/bin/lab-oom-score.sh", Mode: 0o755, Data: own("oom-score.sh")},
		layer.File{Path: "etc/containerd/cri-base.json", Mode: 0o644, Data: spec},
		layer.File{Path: "kind/version", Mode: 0o644, Data: []byte(version)},
		layer.File{Path: "kind/manifests/default-cni.yaml", Mode: 0o644, Data: own("default-cni.yaml")},
		layer.File{Path: "kind/manifests/default-storage.yaml", Mode: 0o644, Data: own("default-storage.yaml")},
	)
	return entries, err
}

// kindFiles are the files under images/base/files of the kind module. Files in the module cache are read-only, so modes
// are set as kind's Dockerfile sets them: a file in a bin folder is a program.
func kindFiles(kindDir, pause string) ([]layer.File, error) {
	root := filepath.Join(kindDir, "images", "base", "files")
	var out []layer.File
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		e := layer.File{Path: filepath.ToSlash(rel), Mode: 0o644}
		if strings.Contains(e.Path, "bin/") {
			e.Mode = 0o755
		}
		if e.Data, err = os.ReadFile(path); err != nil {
			return err
		}
		if e.Path == "etc/containerd/config.toml" {
			if e.Data, err = withSandbox(e.Data, pause); err != nil {
				return err
			}
		}
		out = append(out, e)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("reading kind's base files: %w", err)
	}
	return out, nil
}

var sandboxImage = regexp.MustCompile(`(?m)^(\s*sandbox_image = )"[^"]*"`)

// withSandbox makes containerd use the pause image that kubeadm names: it is the one inside, and no other can be
// pulled.
func withSandbox(config []byte, pause string) ([]byte, error) {
	if !sandboxImage.Match(config) {
		return nil, errors.New("kind's containerd config names no sandbox_image")
	}
	return sandboxImage.ReplaceAll(config, []byte(`${1}"`+pause+`"`)), nil
}

// criBase makes the OCI spec that containerd starts every container from: containerd's default, with kind's hook that
// gives each container its node's product name and UUID, and without limits, which a container may not always raise.
func criBase(ctx context.Context, ctr string) ([]byte, error) {
	raw, err := run(ctx, ctr, "oci", "spec")
	if err != nil {
		return nil, problem.New(problem.BuildFailed, err, "reading containerd's default OCI spec")
	}
	var spec map[string]any
	if err := json.Unmarshal(raw, &spec); err != nil {
		return nil, fmt.Errorf("reading containerd's default OCI spec: %w", err)
	}
	if process, ok := spec["process"].(map[string]any); ok {
		delete(process, "rlimits")
	}
	spec["hooks"] = map[string]any{
		"createContainer": []any{map[string]any{"path": "/kind/bin/mount-product-files.sh"}},
	}
	return json.MarshalIndent(spec, "", "  ")
}
