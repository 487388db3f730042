package lab

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"ambientlab/internal/cluster/embedded"
	"ambientlab/internal/cluster/embedded/embeddedtest"
)

func TestMain(m *testing.M) {
	os.Exit(embeddedtest.Main(m, func(ctx context.Context, stateDir, name string) error {
		e, err := embedded.New(
			embedded.Options{Name: name, StateDir: stateDir, Kubeconfig: filepath.Join(stateDir, "..", "kubeconfig")})
		if err != nil {
			return err
		}
		return e.Delete(ctx)
	}))
}
