package traffic

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Gateway is the caller outside the cluster: HTTP from this host to a pod of the ingress gateway over a port-forward,
// which works alike on Linux, macOS and Docker Desktop. The identity that appb's waypoint sees is the gateway's.
type Gateway struct {
	Cluster   Cluster
	Namespace string
	// Selector finds the gateway's pods, Port is the listener's port inside the pod, Host the route's host name.
	Selector string
	Port     int
	Host     string
	// Service is how kubectl would name it, such as svc/gateway-istio.
	Service string
}

// Send implements Sender.
func (g Gateway) Send(ctx context.Context, load Load, each func(Reply)) (Batch, error) {
	batch := Batch{Load: load, Command: g.command(load)}
	if err := load.check(); err != nil {
		return batch, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, load.deadline(),
		fmt.Errorf("%d requests took longer than %s", load.Count, load.deadline()))
	defer cancel()
	err := g.forward(ctx, load, &batch.Pod, func(client *http.Client, url string) error {
		batch.Replies, batch.Errors = g.send(ctx, client, url, load, each)
		return context.Cause(ctx)
	})
	slices.SortStableFunc(batch.Replies, func(a, b Reply) int { return a.At.Compare(b.At) })
	return batch, err
}

// Once implements Sender.
func (g Gateway) Once(ctx context.Context, load Load) (Answer, error) {
	load.Count, load.Concurrency, load.Rate = 1, 1, 1
	if err := load.check(); err != nil {
		return Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, load.deadline())
	defer cancel()
	var answer Answer
	var pod string
	err := g.forward(ctx, load, &pod, func(client *http.Client, url string) error {
		answer = g.one(ctx, client, url, load)
		return context.Cause(ctx)
	})
	return answer, err
}

func (g Gateway) forward(
	ctx context.Context, load Load, incarnation *string, use func(*http.Client, string) error,
) error {
	pod, err := firstReady(ctx, g.Cluster, g.Namespace, g.Selector)
	if err != nil {
		return err
	}
	*incarnation = pod.Incarnation()
	address, stop, err := g.Cluster.PodPort(ctx, g.Namespace, pod.Name, g.Port)
	if err != nil {
		return fmt.Errorf("forwarding a port to %s: %w", pod.Name, err)
	}
	defer stop()
	transport := &http.Transport{
		MaxConnsPerHost:     load.Concurrency,
		MaxIdleConnsPerHost: load.Concurrency,
		DisableCompression:  true,
	}
	defer transport.CloseIdleConnections()
	client := &http.Client{
		Transport:     transport,
		Timeout:       load.Timeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return use(client, "http://"+address+load.Path)
}

// send keeps the rate with a ticker and the concurrency with a fixed number of workers.
func (g Gateway) send(
	ctx context.Context, client *http.Client, url string, load Load, each func(Reply),
) ([]Reply, []string) {
	var (
		mutex   sync.Mutex
		replies []Reply
		causes  []string
		workers sync.WaitGroup
	)
	turns := make(chan struct{})
	for range min(load.Concurrency, load.Count) {
		workers.Go(func() {
			for range turns {
				answer := g.one(ctx, client, url, load)
				if answer.Status == NoAnswer && ctx.Err() != nil {
					continue // cut off by ourselves, which says nothing of the other side
				}
				mutex.Lock()
				replies = append(replies, answer.Reply)
				if answer.Error != "" && !slices.Contains(causes, answer.Error) && len(causes) < 5 {
					causes = append(causes, answer.Error)
				}
				if each != nil {
					each(answer.Reply)
				}
				mutex.Unlock()
			}
		})
	}
	pace := time.NewTicker(time.Duration(float64(time.Second) / load.Rate))
	defer pace.Stop()
sending:
	for i := range load.Count {
		if i > 0 {
			select {
			case <-pace.C:
			case <-ctx.Done():
				break sending
			}
		}
		select {
		case turns <- struct{}{}:
		case <-ctx.Done():
			break sending
		}
	}
	close(turns)
	workers.Wait()
	return replies, causes
}

func (g Gateway) one(ctx context.Context, client *http.Client, url string, load Load) (answer Answer) {
	started := time.Now()
	answer = Answer{Reply: Reply{At: started.UTC(), Status: NoAnswer}}
	defer func() { answer.Latency = time.Since(started) }()
	request, err := http.NewRequestWithContext(ctx, load.Method, url, http.NoBody)
	if err != nil {
		answer.Error = err.Error()
		return answer
	}
	request.Host = g.Host
	if load.Host != "" {
		request.Host = load.Host
	}
	for _, header := range load.headers() {
		request.Header.Set(header[0], header[1])
	}
	response, err := client.Do(request)
	if err != nil {
		answer.Error = cause(err)
		return answer
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(response.Body, 1<<20))
	if err != nil {
		answer.Error = cause(err)
		return answer
	}
	answer.Status, answer.Header, answer.Body = response.StatusCode, response.Header,
		string(body[:min(len(body), 2048)])
	answer.By = answeredBy(answer.Status, answer.Header, answer.Body)
	return answer
}

func (g Gateway) command(load Load) string {
	host := g.Host
	if load.Host != "" {
		host = load.Host
	}
	method := ""
	if load.Method != http.MethodGet {
		method = " -X " + load.Method
	}
	return fmt.Sprintf("kubectl -n %s port-forward %s 8080:%d &\ncurl -i%s -H 'Host: %s' -H '%s: "+
		"%s' http://127.0.0.1:8080%s",
		g.Namespace, g.Service, g.Port, method, host, RunHeader, load.Run, load.Path)
}

// cause puts a failed request into a few words without addresses.
func cause(err error) string {
	var timeout net.Error
	switch {
	case errors.Is(err, syscall.ECONNRESET):
		return "connection reset by peer"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection closed without an answer"
	}
	return err.Error()
}

// answeredBy tells from a response who made it. Envoy's RBAC filter answers 403 with a fixed body; what an application
// behind Envoy says comes with the time that it took.
func answeredBy(status int, header http.Header, body string) string {
	switch {
	case status == NoAnswer:
		return "no server"
	case status == http.StatusForbidden && strings.TrimSpace(body) == DeniedBody:
		return "the proxy's policy (RBAC)"
	case header.Get("x-envoy-upstream-service-time") != "":
		return "the application, through Envoy"
	case strings.Contains(header.Get("server"), "envoy"):
		return "Envoy itself"
	}
	return "the application"
}

// DeniedBody is the body of Envoy's answer to a request that its RBAC filter denies.
const DeniedBody = "RBAC: access denied"
