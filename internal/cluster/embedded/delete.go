package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Delete stops every process, and removes the lab's folder and its entry in the kubeconfig.
func (e *Embedded) Delete(ctx context.Context) error {
	unlock, err := e.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock() // which takes the lock's file away, too
	return e.remove(ctx)
}

// remove takes everything of the lab away but the lock.
func (e *Embedded) remove(ctx context.Context) error {
	var errs []error
	for _, name := range slices.Backward(e.recorded()) {
		errs = append(errs, e.stop(ctx, name, true))
	}
	if err := errors.Join(errs...); err != nil {
		return err // the folder says which processes are still to be stopped
	}
	if err := e.kubeconfig().Unlink(ctx, e.ContextName()); err != nil {
		return err
	}
	if err := os.RemoveAll(e.dir); err != nil {
		return fmt.Errorf("removing the lab's folder: %w", err)
	}
	return nil
}

// recorded lists every component that has a record: those of another version of the lab too.
func (e *Embedded) recorded() []string {
	names := componentNames()
	records, _ := filepath.Glob(e.recordFile("*"))
	for _, path := range records {
		if name := strings.TrimSuffix(filepath.Base(path), ".json"); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return names
}
