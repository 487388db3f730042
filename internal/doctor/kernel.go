package doctor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"ambientlab/internal/command"
	"ambientlab/internal/problem"
)

// rule is one of each kind of iptables rule that istio-cni adds in pods and on nodes, with the kernel module that it
// needs (istio, cni/pkg/iptables; https://istio.io/latest/docs/ops/deployment/platform-requirements/).
type rule struct {
	module string
	args   string
	// accepted is a message of iptables that does not mean that the module is missing.
	accepted string
}

var rules = []rule{
	{module: "xt_mark", args: "-t mangle -A PREROUTING -m mark --mark 0x539/0xfff -j ACCEPT"},
	{module: "xt_connmark", args: "-t mangle -A PREROUTING -j CONNMARK --set-xmark 0x111/0xfff"},
	{module: "xt_conntrack", args: "-t mangle -A PREROUTING -m conntrack --ctstate ESTABLISHED -j ACCEPT"},
	{module: "xt_REDIRECT", args: "-t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 15001"},
	{module: "xt_CT", args: "-t raw -A OUTPUT -p udp --dport 53 -j CT --zone 1"},
	{module: "xt_owner", args: "-t nat -A POSTROUTING -p tcp -m owner --socket-exists -j ACCEPT"},
	{module: "xt_nat", args: "-t nat -A POSTROUTING -p tcp -j SNAT --to-source 169.254.7.127"},
	// The set does not exist; iptables notices that only after the kernel has the modules.
	{
		module: "ip_set", args: "-t nat -A POSTROUTING -m set --match-set istio-inpod-probes-v4 dst -j ACCEPT",
		accepted: "doesn't exist",
	},
}

// rulesTime bounds the container that tries the rules.
const rulesTime = 20 * time.Second

// tryRules adds the rules in a network namespace of its own: in a container of the node image, on the engine's kernel.
// The error is ErrHidden if the engine does not have the image.
func (h Host) tryRules(ctx context.Context) (missing []string, err error) {
	var script strings.Builder
	for _, r := range rules {
		fmt.Fprintf(&script, "iptables -w %s >/tmp/out 2>&1 || ", r.args)
		if r.accepted != "" {
			fmt.Fprintf(&script, "grep -qF %q /tmp/out || ", r.accepted)
		}
		fmt.Fprintf(&script, "echo %s\n", r.module)
	}
	script.WriteString("echo done\n")
	bounded, cancel := context.WithTimeout(ctx, rulesTime)
	defer cancel()
	out, err := h.Command(bounded, command.Command{Name: "docker", Args: []string{
		"run", "--rm", "--pull=never", "--privileged", "--network=none", "--entrypoint=sh", h.NodeImage, "-c",
		script.String(),
	}})
	if err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("running the node image %s: %w", h.NodeImage, errors.Join(ErrHidden, err))
	}
	lines := strings.Fields(string(out))
	if len(lines) == 0 || lines[len(lines)-1] != "done" {
		return nil, fmt.Errorf("the container of the node image %s printed %q: %w", h.NodeImage, out, ErrHidden)
	}
	return lines[:len(lines)-1], nil
}

// kernel tries the rules where the engine has the node image, and else looks for the modules, which only tells
// something if the engine uses this machine's kernel.
func (h Host) kernel(ctx context.Context) (string, error) {
	if h.NodeImage == "" {
		return h.modules(ctx)
	}
	missing, err := h.tryRules(ctx)
	switch {
	case errors.Is(err, ErrHidden):
		return h.modules(ctx)
	case err != nil:
		return "", err
	case len(missing) > 0:
		return "", Warn(problem.New(problem.HostUnsupported, nil, "the kernel refuses the rules that need %s",
			strings.Join(missing, ", ")).
			With("Load the modules on the Docker host: `sudo modprobe -a " + strings.Join(missing, " ") +
				"`. A kernel without them cannot redirect the traffic of pods."))
	}
	return fmt.Sprintf("%d rules tried in a container of the node image", len(rules)), nil
}
