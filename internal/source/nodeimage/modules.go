package nodeimage

import (
	"context"
	"encoding/json"
	"fmt"

	"ambientlab/internal/problem"
)

// kindModule gives the folder of the kind module in the module cache, downloading it if need be.
func kindModule(ctx context.Context) (string, error) {
	out, err := run(ctx, "go", "mod", "download", "-json", "sigs.k8s.io/kind")
	if err != nil {
		return "", problem.New(problem.BuildFailed, err, "the kind module could not be downloaded")
	}
	var m struct{ Dir string }
	if err := json.Unmarshal(out, &m); err != nil {
		return "", fmt.Errorf("reading where the kind module is: %w", err)
	}
	return m.Dir, nil
}
