package targets

import (
	"context"

	"ambientlab/internal/lab"
)

//revive:disable:line-length-limit `mage -h` reads a comment per flag and the line of variables

// Workshop leads through the lessons on the terminal and on a page: goal, prediction, hints, and a check that starts at every change.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_BUNDLE, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Workshop(ctx context.Context,
	open *bool, // also open the page in a browser; the key o does it later
) error {
	return lab.Run(ctx, "workshop", lab.Workshop(lab.WorkshopOptions{Open: isSet(open)}))
}

// Break puts a fault into a lab in which all lessons are on and does not say which. Run it again to check whether the fault is fixed.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_BUNDLE, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Break(ctx context.Context,
	number *int, // which fault, from 1 on; chosen at random unless given
	hint *bool, // give the next hint
	off *bool, // remove the fault from the lab
) error {
	return lab.Run(ctx, "break", lab.Break(lab.BreakOptions{Number: valueOr(number, 0), Hint: isSet(hint), Off: isSet(off)}))
}
