//go:build e2e && e2efull

package e2e

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/mutate"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"ambientlab/internal/bundle"
	"ambientlab/internal/lesson/names"
)

// testReplacedImage installs with a bundle that has another image under the reference of the one that appb runs: appb's
// pod is replaced by one that runs it.
func (l *lab) testReplacedImage(t *testing.T) {
	running := func() (string, bool) {
		kube, _ := l.kube(t)
		pods, err := kube.CoreV1().Pods("default").
			List(t.Context(), metav1.ListOptions{LabelSelector: "app=" + names.AppB})
		if err != nil {
			t.Fatal(err)
		}
		for _, pod := range pods.Items {
			if pod.DeletionTimestamp != nil || len(pod.Status.ContainerStatuses) == 0 {
				return "", false
			}
			return pod.Status.ContainerStatuses[0].ImageID, pod.Status.ContainerStatuses[0].Ready
		}
		return "", false
	}
	before, _ := running()
	l.env = append(l.env, "SM_BUNDLE="+withAnotherImage(t, os.Getenv("SM_BUNDLE"), names.HttpbinImage))
	l.mage(t, "sm:install")
	l.env = l.env[:len(l.env)-1]
	until(t, "appb to run the image of the second bundle", func() (bool, string) {
		now, ready := running()
		return ready && now != before, now
	})
	l.mage(t, "sm:install") // with the first bundle again
	until(t, "appb to run the image of the first bundle", func() (bool, string) {
		now, ready := running()
		return ready && now == before, now
	})
}

// withAnotherImage makes a copy of a bundle in which the image of a reference has one more label.
func withAnotherImage(t *testing.T, from, ref string) (folder string) {
	t.Helper()
	folder = t.TempDir()
	original, err := bundle.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer original.Close()
	// Blobs are named after their content and never change, so another name of the file is enough.
	if err := filepath.WalkDir(from, func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		to := filepath.Join(folder, strings.TrimPrefix(path, from))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		if strings.Contains(path, "sha256") && os.Link(path, to) == nil {
			return nil
		}
		return copied(path, to)
	}); err != nil {
		t.Fatal(err)
	}
	writer, err := bundle.Create(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range original.Images() {
		image, err := original.Image(entry.Ref)
		if err != nil {
			t.Fatal(err)
		}
		if entry.Ref == ref {
			config, err := image.ConfigFile()
			if err != nil {
				t.Fatal(err)
			}
			changed := config.Config
			changed.Labels = map[string]string{"lab.test": "replaced"}
			if image, err = mutate.Config(image, changed); err != nil {
				t.Fatal(err)
			}
		}
		if err := writer.Add(t.Context(), entry.Ref, image, entry.Substitute); err != nil {
			t.Fatal(err)
		}
	}
	if err := writer.Commit(); err != nil {
		t.Fatal(err)
	}
	return folder
}

func copied(from, to string) error {
	source, err := os.Open(from)
	if err != nil {
		return err
	}
	defer source.Close()
	file, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, source)
	return errors.Join(err, file.Close())
}
