package kubelet

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
)

// tokens gives ServiceAccount tokens that are bound to a pod.
type tokens interface {
	Token(
		ctx context.Context,
		pod *corev1.Pod,
		audience string,
		seconds int64,
	) (*authenticationv1.TokenRequestStatus, error)
}

// volumes are the volumes of one pod: a folder each beneath dir. Folders of the host are folders of the node, beneath
// node: the nodes of a lab share one machine.
type volumes struct {
	dir, node string
	from      source
	tokens    tokens
	now       func() time.Time

	mu    sync.Mutex
	known map[string]knownToken // by volume and path
}

// knownToken is a token that is in use, and the time of its renewal.
type knownToken struct {
	token string
	renew time.Time
}

// path is where a volume's folder is.
func (v *volumes) path(pod *corev1.Pod, name string) string {
	for _, volume := range pod.Spec.Volumes {
		if volume.Name == name && volume.HostPath != nil {
			return filepath.Join(v.node, filepath.Clean("/"+volume.HostPath.Path))
		}
	}
	return filepath.Join(v.dir, name)
}

// fill makes every volume of the pod, and brings the content of those that follow objects of the API up to date.
func (v *volumes) fill(
	ctx context.Context,
	pod *corev1.Pod,
	container func(name string) *corev1.Container,
	node corev1.ResourceList,
) error {
	for _, volume := range pod.Spec.Volumes {
		dir := v.path(pod, volume.Name)
		files, err := v.content(ctx, pod, volume, container, node)
		if err == nil {
			err = os.MkdirAll(dir, 0o755)
		}
		if err == nil && files != nil {
			err = writeAll(dir, files)
		}
		if err != nil {
			return fmt.Errorf("volume %s: %w", volume.Name, err)
		}
	}
	return nil
}

// content gives the files of a volume; nil is for one whose content is the pod's own.
func (v *volumes) content(
	ctx context.Context,
	pod *corev1.Pod,
	volume corev1.Volume,
	container func(string) *corev1.Container,
	node corev1.ResourceList,
) (map[string][]byte, error) {
	switch {
	case volume.EmptyDir != nil, volume.HostPath != nil:
		return nil, nil
	case volume.ConfigMap != nil:
		return v.configMap(ctx, pod.Namespace, volume.ConfigMap.Name, volume.ConfigMap.Items, volume.ConfigMap.Optional)
	case volume.Secret != nil:
		return v.secret(ctx, pod.Namespace, volume.Secret.SecretName, volume.Secret.Items, volume.Secret.Optional)
	case volume.DownwardAPI != nil:
		return downward(pod, volume.DownwardAPI.Items, container, node)
	case volume.Projected != nil:
		files := map[string][]byte{}
		for _, part := range volume.Projected.Sources {
			found, err := v.projected(ctx, pod, volume.Name, part, container, node)
			if err != nil {
				return nil, err
			}
			maps.Copy(files, found)
		}
		return files, nil
	}
	return nil, fmt.Errorf(
		"this kind of volume is not supported; supported: configMap, downwardAPI, emptyDir, hostPath, projected, " +
			"secret",
	)
}

func (v *volumes) projected(
	ctx context.Context,
	pod *corev1.Pod,
	volume string,
	part corev1.VolumeProjection,
	container func(string) *corev1.Container,
	node corev1.ResourceList,
) (map[string][]byte, error) {
	switch {
	case part.ConfigMap != nil:
		return v.configMap(ctx, pod.Namespace, part.ConfigMap.Name, part.ConfigMap.Items, part.ConfigMap.Optional)
	case part.Secret != nil:
		return v.secret(ctx, pod.Namespace, part.Secret.Name, part.Secret.Items, part.Secret.Optional)
	case part.DownwardAPI != nil:
		return downward(pod, part.DownwardAPI.Items, container, node)
	case part.ServiceAccountToken != nil:
		token, err := v.token(ctx, pod, volume, part.ServiceAccountToken)
		return map[string][]byte{part.ServiceAccountToken.Path: []byte(token)}, err
	}
	return nil, fmt.Errorf(
		"this source of a projected volume is not supported; supported: configMap, downwardAPI, secret, " +
			"serviceAccountToken",
	)
}

// token gives a token that is good for at least a fifth of its lifetime, and at least one that is not older than a day:
// when a kubelet asks for another.
func (v *volumes) token(
	ctx context.Context,
	pod *corev1.Pod,
	volume string,
	of *corev1.ServiceAccountTokenProjection,
) (string, error) {
	key := volume + "/" + of.Path
	v.mu.Lock()
	known, have := v.known[key]
	v.mu.Unlock()
	if have && v.now().Before(known.renew) {
		return known.token, nil
	}
	seconds := int64(3600)
	if of.ExpirationSeconds != nil {
		seconds = *of.ExpirationSeconds
	}
	issued, err := v.tokens.Token(ctx, pod, of.Audience, seconds)
	if err != nil {
		return "", fmt.Errorf("asking for a token: %w", err)
	}
	now := v.now()
	life := min(issued.ExpirationTimestamp.Sub(now)*4/5, 24*time.Hour)
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.known == nil {
		v.known = map[string]knownToken{}
	}
	v.known[key] = knownToken{token: issued.Token, renew: now.Add(life)}
	return issued.Token, nil
}

func (v *volumes) configMap(
	ctx context.Context,
	namespace, name string,
	items []corev1.KeyToPath,
	optional *bool,
) (map[string][]byte, error) {
	object, err := v.from.ConfigMap(ctx, namespace, name)
	if err != nil {
		return map[string][]byte{}, missing(err, optional)
	}
	data := map[string][]byte{}
	for key, value := range object.Data {
		data[key] = []byte(value)
	}
	maps.Copy(data, object.BinaryData)
	return selected(data, items, optional, "ConfigMap "+namespace+"/"+name)
}

func (v *volumes) secret(
	ctx context.Context,
	namespace, name string,
	items []corev1.KeyToPath,
	optional *bool,
) (map[string][]byte, error) {
	object, err := v.from.Secret(ctx, namespace, name)
	if err != nil {
		return map[string][]byte{}, missing(err, optional)
	}
	return selected(object.Data, items, optional, "Secret "+namespace+"/"+name)
}

// selected gives the keys that are asked for, under their paths; all keys where none is named.
func selected(
	data map[string][]byte,
	items []corev1.KeyToPath,
	optional *bool,
	what string,
) (map[string][]byte, error) {
	if len(items) == 0 {
		return data, nil
	}
	files := map[string][]byte{}
	for _, item := range items {
		value, has := data[item.Key]
		switch {
		case has:
			files[item.Path] = value
		case optional == nil || !*optional:
			return nil, fmt.Errorf("%s has no key %s", what, item.Key)
		}
	}
	return files, nil
}

func downward(
	pod *corev1.Pod,
	items []corev1.DownwardAPIVolumeFile,
	container func(string) *corev1.Container,
	node corev1.ResourceList,
) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = field(pod, item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			of := container(item.ResourceFieldRef.ContainerName)
			if of == nil {
				return nil, fmt.Errorf("the pod has no container %q", item.ResourceFieldRef.ContainerName)
			}
			value, err = resourceField(of, item.ResourceFieldRef, node)
		}
		if err != nil {
			return nil, err
		}
		files[item.Path] = []byte(value)
	}
	return files, nil
}

// writeAll makes a folder hold exactly these files. A file whose content is the same is not touched.
func writeAll(dir string, files map[string][]byte) error {
	for path, content := range files {
		if !filepath.IsLocal(path) {
			return fmt.Errorf("path %q leads out of the volume", path)
		}
		target := filepath.Join(dir, path)
		if have, err := os.ReadFile(target); err == nil && bytes.Equal(have, content) {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(target+temporary, content, 0o600); err != nil {
			return err
		}
		if err := os.Rename(target+temporary, target); err != nil {
			return err
		}
	}
	return filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name := strings.TrimPrefix(path, dir+string(filepath.Separator))
		if _, wanted := files[filepath.ToSlash(name)]; wanted {
			return nil
		}
		return os.Remove(path)
	})
}

const temporary = ".new"
