package kubelet

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// tally turns the results of a probe into a judgement: a success counts after successThreshold of them in a row, a
// failure after failureThreshold.
type tally struct {
	success, failure int32 // thresholds
	good             bool  // the judgement
	row              int32 // equal results in a row
	last             bool
}

func newTally(probe *corev1.Probe, good bool) *tally {
	return &tally{success: max(probe.SuccessThreshold, 1), failure: max(probe.FailureThreshold, 1), good: good}
}

// add adds a result and tells whether it changed the judgement, or, for a failure, repeated it.
func (t *tally) add(success bool) (decided bool) {
	if t.row > 0 && success != t.last {
		t.row = 0
	}
	t.row, t.last = t.row+1, success
	switch {
	case success && t.row >= t.success:
		decided = !t.good
		t.good = true
	case !success && t.row >= t.failure:
		decided = true
		t.good = false
	}
	return decided
}

// soon is how often a container that has not been ready yet is probed in between its probe's period. Such a probe can
// find it ready, and its failure does not count: a lab does not wait a period for an application that takes
// milliseconds.
const soon = 200 * time.Millisecond

// watch probes a container until ctx ends. decide hears of each judgement; it returns false to end the probing.
func watch(
	ctx context.Context,
	probe *corev1.Probe,
	good bool,
	once func(context.Context) error,
	decide func(good bool, why error) (more bool),
) {
	results := newTally(probe, good)
	period := time.Duration(max(probe.PeriodSeconds, 1)) * time.Second
	limit := time.Duration(max(probe.TimeoutSeconds, 1)) * time.Second
	if !pause(ctx, time.Duration(probe.InitialDelaySeconds)*time.Second) {
		return
	}
	once = limited(once, limit)
	succeeded := good
	due := time.Now() // of the next probe that counts
	for {
		err := once(ctx)
		if ctx.Err() != nil {
			return
		}
		counts := !time.Now().Before(due)
		if counts {
			due = due.Add(period)
			if late := time.Now(); due.Before(late) {
				due = late.Add(period)
			}
		}
		if err == nil || counts {
			if results.add(err == nil) && !decide(results.good, err) {
				return
			}
			succeeded = succeeded || results.good
		}
		wait := time.Until(due)
		if !succeeded {
			wait = min(wait, soon)
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

func limited(once func(context.Context) error, limit time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("no answer within %s", limit))
		defer cancel()
		err := once(ctx)
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	}
}

// pause waits; false means that ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// dialer connects to a pod.
type dialer func(ctx context.Context, address string) (net.Conn, error)

// prober makes the function that probes a container once.
func prober(
	pod *corev1.Pod,
	container *corev1.Container,
	probe *corev1.Probe,
	podIP string,
	dial dialer,
	exec func(ctx context.Context, command []string) (int, string, error),
) func(context.Context) error {
	switch {
	case probe.HTTPGet != nil:
		return func(ctx context.Context) error { return probeHTTP(ctx, container, probe.HTTPGet, podIP, dial) }
	case probe.TCPSocket != nil:
		return func(ctx context.Context) error {
			port, err := portOf(container, probe.TCPSocket.Port)
			if err != nil {
				return err
			}
			host := podIP
			if probe.TCPSocket.Host != "" {
				host = probe.TCPSocket.Host
			}
			conn, err := dial(ctx, net.JoinHostPort(host, strconv.Itoa(port)))
			if err != nil {
				return err
			}
			return conn.Close()
		}
	case probe.GRPC != nil:
		return func(ctx context.Context) error { return probeGRPC(ctx, probe.GRPC, podIP, dial) }
	case probe.Exec != nil:
		return func(ctx context.Context) error {
			code, output, err := exec(ctx, probe.Exec.Command)
			if err == nil && code != 0 {
				err = fmt.Errorf("exit code %d: %.1000s", code, output)
			}
			return err
		}
	}
	return func(context.Context) error {
		return fmt.Errorf("the probe of container %s of pod %s has no action", container.Name, pod.Name)
	}
}

func portOf(container *corev1.Container, port intstr.IntOrString) (int, error) {
	if port.Type == intstr.Int {
		return port.IntValue(), nil
	}
	for _, named := range container.Ports {
		if named.Name == port.StrVal {
			return int(named.ContainerPort), nil
		}
	}
	if number, err := strconv.Atoi(port.StrVal); err == nil {
		return number, nil
	}
	return 0, fmt.Errorf("container %s has no port %s", container.Name, port.StrVal)
}

// probeHTTP takes any status from 200 to 399 for success. A redirect is not followed.
func probeHTTP(
	ctx context.Context,
	container *corev1.Container,
	get *corev1.HTTPGetAction,
	podIP string,
	dial dialer,
) error {
	port, err := portOf(container, get.Port)
	if err != nil {
		return err
	}
	host := podIP
	if get.Host != "" {
		host = get.Host
	}
	target, err := url.Parse(get.Path)
	if err != nil {
		return fmt.Errorf("path %q: %w", get.Path, err)
	}
	target.Scheme, target.Host = strings.ToLower(string(get.Scheme)), net.JoinHostPort(host, strconv.Itoa(port))
	if target.Scheme == "" {
		target.Scheme = "http"
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, target.String(), http.NoBody)
	if err != nil {
		return err
	}
	request.Header.Set("User-Agent", "kube-probe/1.36")
	request.Header.Set("Accept", "*/*")
	for _, header := range get.HTTPHeaders {
		if http.CanonicalHeaderKey(header.Name) == "Host" {
			request.Host = header.Value
			continue
		}
		request.Header.Add(header.Name, header.Value)
	}
	client := &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
				return dial(ctx, address)
			},
			DisableKeepAlives: true,
			TLSClientConfig: &tls.Config{
				InsecureSkipVerify: true,
			}, // as a kubelet: the certificate is not for the pod's address
		},
	}
	response, err := client.Do(request)
	if err != nil {
		var wrapped *url.Error
		if errors.As(err, &wrapped) {
			err = wrapped.Err
		}
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode >= 200 && response.StatusCode < 400 {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(response.Body, 200))
	return fmt.Errorf("HTTP probe failed with statuscode: %d %s", response.StatusCode, bytes.TrimSpace(body))
}

func probeGRPC(ctx context.Context, action *corev1.GRPCAction, podIP string, dial dialer) error {
	target := net.JoinHostPort(podIP, strconv.Itoa(int(action.Port)))
	conn, err := grpc.NewClient(
		"passthrough:///"+target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(
			func(ctx context.Context, address string) (net.Conn, error) { return dial(ctx, address) },
		),
	)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	service := ""
	if action.Service != nil {
		service = *action.Service
	}
	response, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{Service: service})
	if err != nil {
		return err
	}
	if response.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		return fmt.Errorf("the service says %s", response.GetStatus())
	}
	return nil
}
