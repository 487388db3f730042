package targets

import (
	"context"

	"ambientlab/internal/lab"
)

// Workshop leads through the lessons on the terminal: goal, prediction, hints, and a check that starts at every change.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_BUNDLE, SM_TIMEOUT, SM_OUTPUT, KUBECONFIG.
func Workshop(ctx context.Context,
	open *bool, // also open the page in a browser; the key o does it later
) error {
	return lab.Run(ctx, "workshop", lab.Workshop(lab.WorkshopOptions{Open: isSet(open)}))
}
