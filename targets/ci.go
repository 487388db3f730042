package targets

import (
	"context"
	"os"

	"ambientlab/internal/lab"
)

//revive:disable:line-length-limit `mage -h` reads a comment per flag and the line of variables

// Run installs a lab, runs a command in it, deletes the lab, and ends with the command's exit code: sm:run [flags] -- COMMAND.
// -lessons=waypoint,authz turns lessons on first, with those that they need; all, none, or a list; apps unless given.
// -keep=failure keeps the lab where something failed, -keep=always in any case; never unless given. A lab that existed before stays.
// The command finds KUBECONFIG, LAB_NAMESPACE, LAB_CONTEXT, LAB_GATEWAY, LAB_URL and LAB_HOST (the Host header for LAB_URL) in its environment.
// Where anything fails, evidence is collected before the lab is deleted. SM_RESERVE before SM_TIMEOUT the work is stopped, for that and with exit code 90.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_WORKERS, SM_NODE_IMAGE, SM_KIND_CONFIG, SM_BUNDLE, SM_REGISTRY_MIRROR, SM_REGISTRY_CA, SM_ADDONS, SM_METALLB, SM_ISTIO_VALUES, SM_MANIFESTS, SM_PACKETS, SM_ZTUNNEL, SM_TIMEOUT, SM_RESERVE, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Run(ctx context.Context) error {
	if err := lab.RunCommand(ctx, os.Args[1:]); err != nil {
		return err
	}
	os.Exit(0) // Mage would take the command, which follows on the command line, for targets
	return nil
}

// Dump writes what helps to find the cause of a failure into one zip, within 20 seconds: objects, events, logs, what the proxies hold.
// Secrets are left out. Its index.html shows the most important of it. Every target that fails does the same where SM_DUMP names a folder.
// Variables: SM_PROVIDER, SM_CLUSTER, SM_NAMESPACE, SM_WORKERS, SM_NODE_IMAGE, SM_KIND_CONFIG, SM_BUNDLE, SM_REGISTRY_MIRROR, SM_REGISTRY_CA, SM_ADDONS, SM_METALLB, SM_ISTIO_VALUES, SM_MANIFESTS, SM_TIMEOUT, SM_OUTPUT, SM_REPORT, SM_DUMP, SM_TRACE, KUBECONFIG.
func Dump(ctx context.Context,
	out *string, // folder for the zip; that of SM_DUMP, or ambientlab-dump, unless given
) error {
	return lab.Run(ctx, "dump", lab.Dump(valueOr(out, "")))
}
