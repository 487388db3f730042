package traffic

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/textproto"
	"slices"
	"strconv"
	"strings"
	"time"
)

// loadCommand is fortio's command line for a batch. Facts: fortio v1.75.3 writes one JSON object a request to the
// access log (periodic.fileAccessLogger) and, at the end, its result as JSON; both go to standard output, one after the
// other. With -n it sends no warm-up requests (fhttp.RunHTTPTest).
func loadCommand(l Load, url string) []string {
	rate := strconv.FormatFloat(l.Rate, 'g', 4, 64)
	if l.AtOnce {
		rate = "0" // no limit
	}
	return append([]string{
		"fortio", "load", "-json", "-", "-access-log-file", "/dev/stdout", "-access-log-format", "json",
		"-n", strconv.Itoa(l.Count), "-c", strconv.Itoa(min(l.Concurrency, l.Count)),
		"-qps", rate, "-timeout", l.Timeout.String(),
		"-uniform", "-allow-initial-errors", "-loglevel", "error", "-log-errors=false",
	}, request(l, url)...)
}

func curlCommand(l Load, url string) []string {
	return append([]string{"fortio", "curl", "-timeout", l.Timeout.String(), "-loglevel", "error"}, request(l, url)...)
}

func request(l Load, url string) []string {
	var args []string
	for _, header := range l.headers() {
		args = append(args, "-H", header[0]+": "+header[1])
	}
	if l.Host != "" {
		args = append(args, "-H", "Host: "+l.Host)
	}
	if l.Method != http.MethodGet {
		args = append(args, "-X", l.Method)
	}
	return append(args, url+l.Path)
}

// fortioReply is a line of fortio's access log.
type fortioReply struct {
	Latency   *float64 `json:"latency"`
	Timestamp int64    `json:"timestamp"`
	Details   string   `json:"details"`
}

// fortioResult is the part of fortio's result that a batch is checked against.
type fortioResult struct {
	RunType           string
	RetCodes          map[string]int
	DurationHistogram struct{ Count int }
}

// readLoad reads what `fortio load` printed. The requests in its access log must agree with its own totals: a batch of
// which a line is missing is no evidence.
func readLoad(out io.Reader, each func(Reply)) ([]Reply, error) {
	var replies []Reply
	decoder := json.NewDecoder(out)
	for {
		var object json.RawMessage
		if err := decoder.Decode(&object); err != nil {
			return replies, fmt.Errorf("reading fortio's result after %d requests: %w", len(replies), err)
		}
		var line fortioReply
		if err := json.Unmarshal(object, &line); err != nil {
			return replies, fmt.Errorf("reading fortio's result: %w", err)
		}
		if line.Latency == nil {
			var result fortioResult
			if err := json.Unmarshal(object, &result); err != nil {
				return replies, fmt.Errorf("reading fortio's result: %w", err)
			}
			return replies, agree(result, replies)
		}
		status, err := strconv.Atoi(line.Details)
		if err != nil {
			return replies, fmt.Errorf("fortio reported the status %q", line.Details)
		}
		reply := Reply{
			At:      time.Unix(0, line.Timestamp).UTC(),
			Latency: time.Duration(*line.Latency * float64(time.Second)),
			Status:  status,
		}
		replies = append(replies, reply)
		if each != nil {
			each(reply)
		}
	}
}

func agree(result fortioResult, replies []Reply) error {
	byStatus := map[string]int{}
	for _, r := range replies {
		byStatus[strconv.Itoa(r.Status)]++
	}
	if result.RunType != "HTTP" || result.DurationHistogram.Count != len(replies) {
		return fmt.Errorf("fortio counts %d requests, its log holds %d", result.DurationHistogram.Count, len(replies))
	}
	for status, n := range result.RetCodes {
		if byStatus[status] != n {
			return fmt.Errorf("fortio counts %d answers of status %s, its log holds %d", n, status, byStatus[status])
		}
	}
	return nil
}

// fortioErrors picks the distinct causes from the JSON log lines that fortio writes to standard error. Ports and
// addresses are cut off, so that a hundred equal failures are one line.
func fortioErrors(stderr []byte) []string {
	var causes []string
	for line := range bytes.Lines(stderr) {
		var entry struct {
			Level string `json:"level"`
			Msg   string `json:"msg"`
			Err   string `json:"err"`
		}
		if json.Unmarshal(line, &entry) != nil || entry.Level != "err" {
			continue
		}
		cause := entry.Err
		if cause == "" {
			cause = entry.Msg
		} else if i := strings.LastIndex(cause, ": "); i >= 0 {
			cause = cause[i+2:]
		}
		if !slices.Contains(causes, cause) && len(causes) < 5 {
			causes = append(causes, cause)
		}
	}
	return causes
}

// readCurl reads what `fortio curl` printed. Of a 200 the headers are on standard error, between log lines, and the
// body is on standard output; of any other answer both are on standard output (seen with v1.75.3).
func readCurl(stdout, stderr []byte) Answer {
	answer := Answer{Reply: Reply{Status: NoAnswer}}
	head, body := stderr, stdout
	if bytes.HasPrefix(stdout, []byte("HTTP/1.")) {
		head, body = stdout, nil
		if end := bytes.Index(stdout, []byte("\r\n\r\n")); end >= 0 {
			body = stdout[end+4:]
		}
	}
	start := bytes.Index(head, []byte("HTTP/1."))
	if start < 0 {
		answer.Error = strings.Join(fortioErrors(stderr), "; ")
		return answer
	}
	answer.Body = string(body[:min(len(body), 2048)])
	reader := textproto.NewReader(bufio.NewReader(bytes.NewReader(head[start:])))
	first, err := reader.ReadLine()
	if err != nil {
		return answer
	}
	if fields := strings.Fields(first); len(fields) >= 2 {
		if status, err := strconv.Atoi(fields[1]); err == nil {
			answer.Status = status
		}
	}
	// A malformed header leaves those before it, which is all that evidence needs.
	header, _ := reader.ReadMIMEHeader()
	answer.Header = http.Header(header)
	answer.By = answeredBy(answer.Status, answer.Header, answer.Body)
	return answer
}

// InPod is a caller inside the cluster: fortio in a pod, run through the API server.
type InPod struct {
	Cluster   Cluster
	Namespace string
	// Selector finds the pod; the first ready one by name is taken for each batch.
	Selector string
	// URL is where the requests go, without a path: appb's Service, or a pod's address.
	URL string
	// Workload is how kubectl would name the pod, such as deploy/appa.
	Workload string
}

// Send implements Sender.
func (p InPod) Send(ctx context.Context, load Load, each func(Reply)) (Batch, error) {
	batch := Batch{Load: load, Command: p.command(curlCommand(load, p.URL))}
	if err := load.check(); err != nil {
		return batch, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, load.deadline(),
		fmt.Errorf("%d requests took longer than %s", load.Count, load.deadline()))
	defer cancel()
	pod, err := firstReady(ctx, p.Cluster, p.Namespace, p.Selector)
	if err != nil {
		return batch, err
	}
	batch.Pod = pod.Incarnation()
	reader, writer := io.Pipe()
	var stderr tail
	type ended struct {
		status int
		err    error
	}
	done := make(chan ended, 1)
	go func() {
		status, err := p.Cluster.Exec(ctx, p.Namespace, pod.Name, Container, loadCommand(load, p.URL), writer, &stderr)
		writer.CloseWithError(io.EOF)
		done <- ended{status, err}
	}()
	replies, readErr := readLoad(reader, each)
	reader.CloseWithError(errors.New("fortio's result has been read")) // ends a command that goes on printing
	end := <-done
	batch.Replies = replies
	batch.Errors = fortioErrors(stderr.Bytes())
	switch {
	case context.Cause(ctx) != nil:
		return batch, fmt.Errorf("fortio in %s: %w", pod.Name, context.Cause(ctx))
	case end.err != nil:
		return batch, fmt.Errorf("running fortio in %s: %w", pod.Name, end.err)
	case end.status != 0:
		return batch, fmt.Errorf("fortio in %s ended with status %d: %s", pod.Name, end.status,
			lastLine(stderr.Bytes()))
	case readErr != nil:
		// client-go takes an exec stream that broke off for a command that succeeded, so success without the whole
		// result means that the status never came.
		return batch, fmt.Errorf("fortio in %s: %w: %w", pod.Name, ErrStatusLost, readErr)
	case len(replies) != load.Count:
		return batch, fmt.Errorf("fortio was asked for %d requests and reports %d", load.Count, len(replies))
	}
	slices.SortStableFunc(batch.Replies, func(a, b Reply) int { return a.At.Compare(b.At) })
	return batch, nil
}

// Once implements Sender. `fortio curl` ends with status 1 for every answer but 200, so the status alone says nothing.
func (p InPod) Once(ctx context.Context, load Load) (Answer, error) {
	load.Count, load.Concurrency, load.Rate = 1, 1, 1
	if err := load.check(); err != nil {
		return Answer{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, load.deadline())
	defer cancel()
	pod, err := firstReady(ctx, p.Cluster, p.Namespace, p.Selector)
	if err != nil {
		return Answer{}, err
	}
	var stdout, stderr tail
	status, err := p.Cluster.Exec(ctx, p.Namespace, pod.Name, Container, curlCommand(load, p.URL), &stdout, &stderr)
	if err != nil {
		return Answer{}, fmt.Errorf("fortio curl in %s: %w", pod.Name, err)
	}
	if status > 1 {
		return Answer{}, fmt.Errorf("fortio curl in %s ended with status %d: %s", pod.Name, status,
			lastLine(stderr.Bytes()))
	}
	answer := readCurl(stdout.Bytes(), stderr.Bytes())
	if (status == 0) != (answer.Status == http.StatusOK) {
		return answer, fmt.Errorf("fortio curl in %s printed status %d and exited with %d: %w", pod.Name, answer.Status,
			status, ErrStatusLost)
	}
	return answer, nil
}

func (p InPod) command(args []string) string {
	quoted := make([]string, len(args))
	for i, a := range args {
		if strings.ContainsAny(a, " ;&?*'\"") {
			a = "'" + a + "'"
		}
		quoted[i] = a
	}
	return fmt.Sprintf("kubectl -n %s exec %s -c %s -- %s", p.Namespace, p.Workload, Container,
		strings.Join(quoted, " "))
}

func firstReady(ctx context.Context, cluster Cluster, namespace, selector string) (Pod, error) {
	pods, err := cluster.Pods(ctx, namespace, selector)
	if err != nil {
		return Pod{}, fmt.Errorf("listing pods %s in %s: %w", selector, namespace, err)
	}
	for _, p := range pods {
		if p.Ready {
			return p, nil
		}
	}
	return Pod{}, fmt.Errorf("of %d pods %s in %s none is ready", len(pods), selector, namespace)
}
