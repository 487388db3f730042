package lesson

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
)

// Apps is sm:apps: the two applications, and the gateway that leads to appb.
func Apps() Lesson {
	return Lesson{
		Name: "apps", Parameters: struct{}{},
		On: "appa, appb, Gateway " + names.Gateway, Off: "appa, appb, Gateway " + names.Gateway,
		Data: func(config session.Config) map[string]any {
			serviceType := ""
			if !config.LoadBalancer {
				serviceType = "ClusterIP"
			}
			return map[string]any{
				"Httpbin": names.HttpbinImage, "Fortio": names.FortioImage,
				"ServiceType": serviceType,
			}
		},
		Images:  []string{names.HttpbinImage, names.FortioImage},
		Plan:    appsPlan,
		Claims:  appsClaims(),
		Missing: appsMissing,
		Show:    tellAccess,
		Next:    typed("mage sm:waypoint"), NextOff: "mage sm:apps to create them again, or mage sm:delete",
	}
}

func appsPlan(l Lesson, s *session.Session) engine.Plan {
	return engine.Plan{Name: l.Name, Title: "appa, appb and the gateway", Steps: []engine.Step{
		l.specStep(s, "appa", "appa, the caller", "appa.yaml"),
		l.specStep(s, "appb", "appb, the callee", "appb.yaml"),
		l.recordedStep(s, "Gateway and HTTPRoute for "+names.Host, "gateway.yaml"),
	}}
}

func appsMissing(by string) *problem.Problem {
	return problem.New(problem.ObjectMissing, nil,
		"sm:%s needs appb, and the applications are not installed; nothing was changed", by)
}

// dialTimeout is how long the gateway may take to accept a connection from this host.
const dialTimeout = 3 * time.Second

// tellAccess says how to send appb a request from this host. A load-balancer address may not lead from here to the
// cluster: Docker Desktop, for example, keeps it inside its virtual machine (kubernetes-sigs/kind#3556).
func tellAccess(ctx context.Context, s *session.Session) error {
	gateway, err := s.Gateway(ctx, names.Gateway)
	if err != nil {
		return err
	}
	if gateway == nil {
		return problem.New(problem.ObjectMissing, nil, "Gateway %s does not exist, although it was just applied",
			names.Gateway)
	}
	address := firstAddress(gateway)
	if !s.Info.Packets {
		s.Tell("the gateway's address %s leads nowhere, since this lab carries no packets; see its routes: "+
			"mage sm:proxyConfig -of=gateway", address)
		return nil
	}
	served, err := hostAddress(ctx, s)
	if err != nil {
		return err
	}
	for _, candidate := range []string{served, address} {
		if answers(ctx, candidate) {
			s.Tell("try: curl -H 'Host: %s' http://%s/headers", names.Host, candidate)
			return nil
		}
	}
	s.Tell("try: mage sm:dashboard, and in another terminal curl -H 'Host: %s' http://127.0.0.1:8080/headers",
		names.Host)
	return nil
}

// hostAddress is the address of this machine at which the provider serves the gateway, or "".
func hostAddress(ctx context.Context, s *session.Session) (string, error) {
	client, err := s.Connect(ctx)
	if err != nil {
		return "", err
	}
	service, err := client.Kube().CoreV1().Services(s.Config.Namespace).
		Get(ctx, names.GatewayAccount, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("reading Service %s: %w", names.GatewayAccount, err)
	}
	first, _, _ := strings.Cut(service.Annotations[cluster.HostAddress], ",")
	return first, nil
}

// answers tells whether a connection to the gateway can be opened from this host. Without a port, it is the gateway's.
func answers(ctx context.Context, address string) bool {
	if address == "" {
		return false
	}
	if _, _, err := net.SplitHostPort(address); err != nil {
		address = net.JoinHostPort(address, strconv.Itoa(names.GatewayPort))
	}
	connection, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	_ = connection.Close()
	return true
}

// firstAddress is the first address in a Gateway's status, or "".
func firstAddress(gateway *unstructured.Unstructured) string {
	addresses, _, _ := unstructured.NestedSlice(gateway.Object, "status", "addresses")
	if len(addresses) == 0 {
		return ""
	}
	first, _ := addresses[0].(map[string]any)
	value, _, _ := unstructured.NestedString(first, "value")
	return value
}
