//go:build !linux

package embedded

import "context"

func tryNamespaces(context.Context) trialResult {
	return trialResult{Step: "namespaces", Error: "this system has none"}
}
