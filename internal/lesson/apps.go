package lesson

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"ambientlab/internal/cluster"
	"ambientlab/internal/engine"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"
	"ambientlab/internal/mesh"
	"ambientlab/internal/node"
	"ambientlab/internal/probe"
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
			switch {
			case config.LoadBalancer:
			case config.NodePort != 0:
				serviceType = "NodePort"
			default:
				serviceType = "ClusterIP"
			}
			return map[string]any{
				"Httpbin":     names.HttpbinImage,
				"Fortio":      names.FortioImage,
				"ServiceType": serviceType,
				"NodePort":    config.NodePort,
			}
		},
		Images:  []string{names.HttpbinImage, names.FortioImage},
		Plan:    appsPlan,
		Claims:  appsClaims(),
		Missing: appsMissing,
		Restarted: func(s *session.Session) Wait {
			return Wait{"The pods of appa, appb and the gateway are ready", mesh.PodsReady(s.Config.Namespace,
				fmt.Sprintf("app in (%s,%s)", names.AppA, names.AppB), mesh.GatewayLabel+"="+names.Gateway)}
		},
		Show: tellAccess,
		Next: typed("mage sm:waypoint"), NextOff: "mage sm:apps to create them again, or mage sm:delete",
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

// tellAccess says how to send appb a request from this host. A load-balancer address may not lead from here to the
// cluster: Docker Desktop, for example, keeps it inside its virtual machine (kubernetes-sigs/kind#3556).
func tellAccess(ctx context.Context, s *session.Session) error {
	address, published, answers, err := access(ctx, s)
	if err != nil {
		return err
	}
	if !s.Info.Packets {
		s.Tell("the gateway's address %s leads nowhere, since this lab carries no packets; see its routes: "+
			"mage sm:proxyConfig -of=gateway", address)
		return nil
	}
	for _, line := range accessLines(ctx, address, published, answers) {
		s.Tell("%s", line)
	}
	return nil
}

// Reachable gives the gateway's address, and the one at which the gateway answers from this machine, with or without a
// port. The second is empty where there is none; both are empty while sm:apps is off.
func Reachable(ctx context.Context, s *session.Session) (address, answering string, err error) {
	if _, on := s.Found.Lessons["apps"]; !on {
		return "", "", nil
	}
	address, published, answers, err := access(ctx, s)
	if err != nil || !s.Info.Packets {
		return address, "", err
	}
	for _, each := range []string{published, address} {
		if each != "" && answers(ctx, each) {
			return address, each, nil
		}
	}
	return address, "", nil
}

// access gives the gateway's address, the address of this machine at which the provider serves the gateway, and a
// function that tells whether the gateway answers at an address.
func access(ctx context.Context, s *session.Session) (
	address, published string, answers func(context.Context, string) bool, err error,
) {
	gateway, err := s.Gateway(ctx, names.Gateway)
	if err != nil {
		return "", "", nil, err
	}
	if gateway == nil {
		return "", "", nil, problem.New(problem.ObjectMissing, nil,
			"Gateway %s does not exist, although it was just applied", names.Gateway)
	}
	if published, err = publishedAddress(ctx, s); err != nil {
		return "", "", nil, err
	}
	delay, _, err := Fault(params.DefaultFault()).AsRecorded(s.Found)
	if err != nil {
		return "", "", nil, err
	}
	fault, _ := delay.Parameters.(params.Fault)
	answers = func(ctx context.Context, address string) bool { return gatewayAnswers(ctx, address, fault.OtherPath()) }
	return firstAddress(gateway), published, answers, nil
}

// publishedAddress is the address of this machine, host and port, at which the provider serves the gateway, or "".
func publishedAddress(ctx context.Context, s *session.Session) (string, error) {
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
	if first, _, _ := strings.Cut(service.Annotations[cluster.HostAddress], ","); first != "" {
		return first, nil
	}
	if !slices.ContainsFunc(
		service.Spec.Ports,
		func(port corev1.ServicePort) bool { return port.NodePort == node.GatewayPort },
	) {
		return "", nil
	}
	nodes, err := s.Provider().Nodes(ctx)
	if err != nil {
		return "", err
	}
	for _, n := range nodes {
		if n.Gateway != "" {
			return n.Gateway, nil
		}
	}
	return "", nil
}

// accessLines says how to reach appb: at the gateway's address where the gateway answers there, else at the published
// one, else through sm:dashboard. A published address on the loopback also serves browsers, which cannot set a Host
// header.
func accessLines(
	ctx context.Context,
	address, published string,
	answers func(ctx context.Context, address string) bool,
) []string {
	var curl, browser string
	if published != "" && answers(ctx, published) {
		curl = published
		if ip, err := netip.ParseAddrPort(published); err == nil && ip.Addr().IsLoopback() {
			browser = fmt.Sprintf("in a browser: http://%s:%d/headers", names.LocalHost, ip.Port())
		}
	}
	if address != "" && answers(ctx, address) {
		curl = address
	}
	if curl == "" {
		return []string{
			fmt.Sprintf(
				"try: mage sm:dashboard, and in another terminal curl -H 'Host: %s' http://127.0.0.1:8080/headers",
				names.Host,
			),
		}
	}
	lines := []string{fmt.Sprintf("try: curl -H 'Host: %s' http://%s/headers", names.Host, curl)}
	if browser != "" {
		lines = append(lines, browser)
	}
	return lines
}

// answerTimeout is how long the gateway may take to answer a request from this host, and answerPause the time between a
// request that failed and the next: kube-proxy serves the ports of a new Service shortly after the Gateway is ready.
const (
	answerTimeout = 2 * time.Second
	answerPause   = 100 * time.Millisecond
)

// gatewayAnswers tells whether the gateway answers a request for a path of appb, which is not to be delayed, at an
// address with or without a port. Another server could have the address in another network: what answers must be appb's
// 200, or name itself as Istio's Envoy.
func gatewayAnswers(ctx context.Context, address, path string) bool {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+path, http.NoBody)
	if err != nil {
		return false
	}
	request.Host = names.Host
	// No proxy: the address is in a network of this host.
	transport := &http.Transport{DisableKeepAlives: true}
	for {
		response, err := transport.RoundTrip(request)
		if err == nil {
			_ = response.Body.Close()
			return response.StatusCode == http.StatusOK || response.Header.Get("Server") == "istio-envoy"
		}
		select {
		case <-time.After(answerPause):
		case <-ctx.Done():
			return false
		}
	}
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

// appsClaims are those of lesson apps.
func appsClaims() []probe.Claim {
	return []probe.Claim{
		{
			ID: "reach-appa", Lesson: "apps", Title: "appa reaches appb",
			Learn: "Two applications in one mesh talk by name; nothing in them knows of the mesh.",
			When:  probe.Admitted(probe.Appa),
			Shot: probe.Shot{
				Caller: probe.Appa, Method: http.MethodGet, Path: probe.OtherPath, Count: probe.Few,
				Expect: probe.Expect{Status: http.StatusOK},
			},
			Causes: policyCauses(),
		},
		{
			ID: "reach-gateway", Lesson: "apps", Title: "the outside reaches appb through the gateway",
			Learn: "The HTTPRoute sends the host name " + names.Host + " to appb.",
			When:  probe.Admitted(probe.Gateway),
			Shot: probe.Shot{
				Caller: probe.Gateway, Method: http.MethodGet, Path: probe.OtherPath, Count: probe.Few,
				Expect: probe.Expect{Status: http.StatusOK},
			},
			Configuration: []probe.ConfigurationCheck{{
				Name: "route", Of: probe.GatewayProxy,
				Expect: func(s probe.Scene) string { return names.Host + " leads to " + s.Target.Service.String() },
				Met: func(s probe.Scene, found probe.Configured) (bool, string) {
					return mesh.RoutesTo(found.Dump, names.Host, s.Target.Service)
				},
			}},
			Causes: policyCauses(),
		},
		{
			ID: "gateway-other-host", Lesson: "apps", Title: "the gateway has no route for another host",
			Learn: "A control: the gateway itself answers what has no route, so a 200 above is really appb's.",
			When:  probe.Always,
			Shot: probe.Shot{
				Caller: probe.Gateway, Method: http.MethodGet, Path: probe.OtherPath, Host: otherHost,
				Count: probe.Few, Expect: probe.Expect{Status: http.StatusNotFound},
			},
			Configuration: []probe.ConfigurationCheck{{
				Name: "no other route", Of: probe.GatewayProxy,
				Expect: func(s probe.Scene) string {
					return otherHost + " does not lead to " + s.Target.Service.String()
				},
				Met: func(s probe.Scene, found probe.Configured) (bool, string) {
					if led, _ := mesh.RoutesTo(found.Dump, otherHost, s.Target.Service); led {
						return false, "the gateway has a route for " + otherHost
					}
					return true, ""
				},
			}},
		},
	}
}

// otherHost is a host name of the Gateway's listener that no HTTPRoute names.
const otherHost = "appa.opssec.in"
