package traffic_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/probe/traffic"
)

func inPod(c *cluster) traffic.InPod {
	return traffic.InPod{
		Cluster: c, Namespace: "default", Selector: "app=appa", URL: "http://appb:8000",
		Workload: "deploy/appa",
	}
}

func TestSendReadsWhatFortioMeasured(t *testing.T) {
	c := &cluster{pods: ready, stdout: captured(t, "load.stdout"), stderr: captured(t, "load.stderr")}
	seen := 0
	batch, err := inPod(c).Send(t.Context(), load(), func(traffic.Reply) { seen++ })
	if err != nil {
		t.Fatal(err)
	}
	if len(batch.Replies) != 8 || seen != 8 || batch.Pod != "appa-1/u1/2" || len(batch.Errors) != 0 {
		t.Errorf("batch %+v, %d handed over", batch, seen)
	}
	slow := 0
	for i, r := range batch.Replies {
		if r.Status != 200 || (i > 0 && r.At.Before(batch.Replies[i-1].At)) {
			t.Errorf("reply %+v", r)
		}
		if r.Latency >= 200*time.Millisecond {
			slow++
		}
	}
	if slow != 4 {
		t.Errorf("%d slow answers", slow)
	}
	line := strings.Join(c.command, " ")
	for _, want := range []string{
		"fortio load -json -", "-n 8 -c 2 -qps 100", "-H X-Lab-Run: r1",
		"-H User-Agent: ambientlab/r1", "http://appb:8000/headers",
	} {
		if !strings.Contains(line, want) {
			t.Errorf("%q is missing in %s", want, line)
		}
	}
	if !strings.HasPrefix(batch.Command, "kubectl -n default exec deploy/appa -c fortio -- fortio curl") ||
		!strings.Contains(batch.Command, "'X-Lab-Run: r1'") {
		t.Errorf("command %s", batch.Command)
	}
}

func TestSendKeepsTheWordsOfRefusedConnections(t *testing.T) {
	c := &cluster{pods: ready, stdout: captured(t, "refused.stdout"), stderr: captured(t, "refused.stderr")}
	l := load()
	l.Count, l.Method, l.Host = 4, http.MethodPost, "other"
	batch, err := inPod(c).Send(t.Context(), l, nil)
	if err != nil {
		t.Fatal(err)
	}
	if batch.Replies[0].Status != traffic.NoAnswer || !slices.Equal(batch.Errors, []string{"connection refused"}) {
		t.Errorf("%+v %q", batch.Replies, batch.Errors)
	}
	if !slices.Contains(c.command, "POST") || !slices.Contains(c.command, "Host: other") {
		t.Errorf("command %q", c.command)
	}
}

// Whatever is not whole is no evidence.
func TestSendGivesNoHalfEvidence(t *testing.T) {
	whole := captured(t, "load.stdout")
	firstLine := whole[bytes.IndexByte(whole, '\n')+1:]
	for name, c := range map[string]struct {
		cluster *cluster
		load    func(*traffic.Load)
		says    string
		lost    bool
	}{
		"exit status lost": {
			&cluster{pods: ready, stdout: whole, execErr: traffic.ErrStatusLost}, nil, "lost",
			true,
		},
		"output cut":     {&cluster{pods: ready, stdout: whole[:400]}, nil, "lost", true},
		"no output":      {&cluster{pods: ready}, nil, "after 0 requests", true},
		"a line missing": {&cluster{pods: ready, stdout: firstLine}, nil, "its log holds 7", true},
		"a status that disagrees": {
			&cluster{pods: ready, stdout: bytes.Replace(whole, []byte(`"200": 8`), []byte(`"200": 7`), 1)}, nil,
			"of status 200", true,
		},
		"a status that is no code": {
			&cluster{pods: ready, stdout: bytes.Replace(whole, []byte(`"details":"200"`), []byte(`"details":"?"`), 1)},
			nil, "reported the status", true,
		},
		"no JSON": {&cluster{pods: ready, stdout: []byte("[]")}, nil, "reading fortio's result", true},
		"fortio failed": {
			&cluster{pods: ready, stdout: whole, status: 1, stderr: []byte("a\nno such host\n")},
			nil, "status 1: no such host", false,
		},
		"exec refused": {&cluster{pods: ready, execErr: errors.New("forbidden")}, nil, "forbidden", false},
		"fewer than asked": {
			&cluster{pods: ready, stdout: whole}, func(l *traffic.Load) { l.Count = 9 },
			"asked for 9", false,
		},
		"no pod ready":       {&cluster{pods: ready[:1]}, nil, "none is ready", false},
		"no pods to be had":  {&cluster{podsErr: errors.New("forbidden")}, nil, "listing pods", false},
		"too many":           {&cluster{}, func(l *traffic.Load) { l.Count = 99999 }, "outside 1 to", false},
		"too fast":           {&cluster{}, func(l *traffic.Load) { l.Rate = 1e6 }, "a second", false},
		"too many at a time": {&cluster{}, func(l *traffic.Load) { l.Concurrency = 999 }, "at a time", false},
		"no timeout":         {&cluster{}, func(l *traffic.Load) { l.Timeout = 0 }, "timeout", false},
		"no run":             {&cluster{}, func(l *traffic.Load) { l.Run = "" }, "run ID", false},
		"no path":            {&cluster{}, func(l *traffic.Load) { l.Path = "x" }, "slash", false},
		"odd method":         {&cluster{}, func(l *traffic.Load) { l.Method = "BREW" }, "BREW", false},
	} {
		t.Run(name, func(t *testing.T) {
			l := load()
			if c.load != nil {
				c.load(&l)
			}
			_, err := inPod(c.cluster).Send(t.Context(), l, nil)
			if err == nil || !strings.Contains(err.Error(), c.says) || errors.Is(err, traffic.ErrStatusLost) != c.lost {
				t.Errorf("error %v, want one that says %q (lost: %v)", err, c.says, c.lost)
			}
		})
	}
}

func TestSendEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	c := &cluster{pods: ready, stdout: captured(t, "load.stdout")[:300], hang: true}
	_, err := inPod(c).Send(ctx, load(), func(traffic.Reply) { cancel(errors.New("Ctrl-C")) })
	if err == nil || !strings.Contains(err.Error(), "Ctrl-C") {
		t.Errorf("error %v", err)
	}
}

func TestOnceReadsHeadersAndBody(t *testing.T) {
	for _, c := range []struct {
		name   string
		exit   int
		status int
		by     string
		body   string
		err    string
	}{
		{"curl", 0, 200, "the application, through Envoy", "{}", ""},
		{"denied", 1, 403, "the proxy's policy (RBAC)", traffic.DeniedBody, ""},
		{"curl-refused", 1, traffic.NoAnswer, "", "", "connection refused"},
	} {
		fake := &cluster{
			pods: ready, stdout: captured(t, c.name+".stdout"), stderr: captured(t, c.name+".stderr"),
			status: c.exit,
		}
		answer, err := inPod(fake).Once(t.Context(), load())
		if err != nil {
			t.Fatal(err)
		}
		if answer.Status != c.status || answer.By != c.by || answer.Body != c.body ||
			!strings.Contains(answer.Error, c.err) {
			t.Errorf("%s: %+v", c.name, answer)
		}
	}
	for name, fake := range map[string]*cluster{
		"success without an answer": {pods: ready},
		"failure with a good one":   {pods: ready, stderr: captured(t, "curl.stderr"), status: 1},
		"lost":                      {pods: ready, execErr: traffic.ErrStatusLost},
	} {
		if _, err := inPod(fake).Once(t.Context(), load()); !errors.Is(err, traffic.ErrStatusLost) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := inPod(&cluster{pods: ready, status: 127}).Once(t.Context(), load()); err == nil ||
		!strings.Contains(err.Error(), "127") {
		t.Errorf("no such command: %v", err)
	}
}

// Every connection sends equally many, and not fewer requests are sent than were asked for.
func TestEven(t *testing.T) {
	for _, c := range []struct{ count, concurrency, wantCount, wantConcurrency int }{
		{348, 124, 348, 116},
		{347, 124, 348, 116},
		{501, 40, 507, 39},
		{20, 20, 20, 20},
		{7, 20, 7, 7},
		{1, 4, 1, 1},
		{traffic.MaxCount, 300, traffic.MaxCount, 286},
	} {
		l := traffic.Load{Count: c.count, Concurrency: c.concurrency}.Even()
		if l.Count != c.wantCount || l.Concurrency != c.wantConcurrency {
			t.Errorf("%d by %d: %d by %d, want %d by %d", c.count, c.concurrency, l.Count, l.Concurrency, c.wantCount,
				c.wantConcurrency)
		}
	}
}
