package session

import (
	"fmt"
	"os"
	"regexp"
	"strings"

	"github.com/moby/moby/client"

	"ambientlab/internal/bundle"
	"ambientlab/internal/cluster"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
	"ambientlab/specs"
)

// DefaultNodeImage is kind v0.33's build of the newest Kubernetes that Istio 1.31 supports (Istio 1.31 release
// announcement: 1.32 to 1.36; kind v0.33 release notes for the digest).
const DefaultNodeImage = "kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed"

// kindConfig is the configuration of the kind cluster, in which every node has its image.
func (e *Env) kindConfig(info client.SystemInfoResult) ([]byte, error) {
	raw, err := e.Settings.readKindConfig()
	if err != nil {
		return nil, err
	}
	if raw == nil {
		raw, err = specs.Render("kind.yaml", map[string]any{
			"Workers": e.Settings.Workers, "WorkerList": make([]struct{}, e.Settings.Workers),
			"CgroupV1": info.Info.CgroupVersion == "1", "GatewayNodePort": node.GatewayPort,
		})
		if err != nil {
			return nil, err
		}
	}
	if e.Mirror() != nil {
		if raw, err = cluster.WithRegistryHosts(raw, bundle.HostsDir); err != nil {
			return nil, err
		}
	}
	return cluster.WithNodeImage(raw, e.usualNodeImage())
}

// readKindConfig reads and checks SM_KIND_CONFIG; nil means that it is not set.
func (s Settings) readKindConfig() ([]byte, error) {
	if s.KindConfig == "" {
		return nil, nil
	}
	raw, err := os.ReadFile(s.KindConfig)
	if err != nil {
		return nil, problem.New(problem.SettingFileUnreadable, err, "SM_KIND_CONFIG=%s", s.KindConfig)
	}
	if err := cluster.CheckConfig(raw); err != nil {
		return nil, fmt.Errorf("SM_KIND_CONFIG=%s: %w", s.KindConfig, err)
	}
	return raw, nil
}

// NodeImages are the images that kind nodes run: SM_NODE_IMAGE for all of them, else those that SM_KIND_CONFIG names,
// and usual for the nodes for which it names none.
func (s Settings) NodeImages(usual string) ([]string, error) {
	if s.NodeImage != "" {
		return []string{s.NodeImage}, nil
	}
	raw, err := s.readKindConfig()
	if err != nil {
		return nil, err
	}
	if raw, err = cluster.WithNodeImage(raw, usual); err != nil {
		return nil, err
	}
	return cluster.NodeImages(raw)
}

// usualNodeImage is the node image where no setting names one: the bundle's, else the pinned one.
func (e *Env) usualNodeImage() string {
	if e.shared.bundle != nil {
		for _, image := range e.shared.bundle.Images() {
			if strings.HasPrefix(strings.TrimPrefix(image.Ref, "docker.io/"), "kindest/node:") {
				return image.Ref
			}
		}
	}
	if e.Mirror() != nil { // the lab pulls it: Docker records a digest only of an image that it pulls itself
		return nodeImageName()
	}
	return DefaultNodeImage
}

// nodeImageName is DefaultNodeImage without its digest.
func nodeImageName() string {
	name, _, _ := strings.Cut(DefaultNodeImage, "@")
	return name
}

// Pinned gives the reference by which a node image is pulled: with the digest where it is the default one.
func Pinned(ref string) string {
	if ref == nodeImageName() {
		return DefaultNodeImage
	}
	return ref
}

// nodeImageTag finds the version in a reference such as kindest/node:v1.36.4@sha256:...
var nodeImageTag = regexp.MustCompile(`:(v\d+\.\d+\.\d+)(@.*)?$`)

// CheckNodeImages refuses a node image whose tag names a Kubernetes that Istio does not support. Where a tag names no
// version, the cluster is asked once it exists.
func CheckNodeImages(refs []string) error {
	for _, ref := range refs {
		if tag := nodeImageTag.FindStringSubmatch(ref); tag != nil {
			if err := cluster.CheckVersion("node image "+ref, tag[1]); err != nil {
				return err
			}
		}
	}
	return nil
}
