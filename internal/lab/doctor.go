package lab

import "context"

// Doctor checks this host and the cluster.
func (l *Lab) Doctor(ctx context.Context) error {
	return nil
}
