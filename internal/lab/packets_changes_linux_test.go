package lab

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"strconv"
	"sync"
	"testing"
	"time"

	"ambientlab/internal/lesson/names"
	"ambientlab/internal/lesson/params"
)

// TestPacketsChangedUnderLoad turns lessons off and on, and changes their parameters, while appa and clients of the
// gateway send requests on connections that stay open. The waypoint delays half of the requests by two seconds, so each
// change meets some in flight. Every request is answered with 200. A waypoint that is turned off and on at once works.
func TestPacketsChangedUnderLoad(t *testing.T) {
	b := newBench(t, "changes", "SM_PACKETS=on")
	b.installOrSkip()
	b.do("apps", b.apps)
	address := b.hostAddress()
	b.answers(http.MethodGet, address, http.StatusOK)
	b.do("waypoint", b.waypoint)
	b.do("fault", b.fault)
	b.do("authz", b.authz)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	fromGateway, fromAppa := newAnswers(), newAnswers()
	var sending sync.WaitGroup
	for range 8 {
		sending.Go(func() { throughGateway(ctx, t, address, fromGateway) })
	}
	appa := b.podFor("default", "app=appa").Name
	sending.Go(func() {
		for ctx.Err() == nil {
			_, printed := b.exec(appa, nil, "/usr/bin/fortio", "load", "-quiet", "-qps=20", "-c=8", "-n=80",
				"-timeout=60s", "http://"+names.AppB+":"+strconv.Itoa(names.AppPort)+"/headers")
			fromAppa.addFortio(printed)
		}
	})
	strict := func(ctx context.Context) error { return b.Authz(ctx, "", true, false) }
	most := func(ctx context.Context) error {
		fault := params.DefaultFault()
		fault.Percent = 90
		return b.Fault(ctx, fault, false)
	}
	off := func(ctx context.Context) error { return b.Authz(ctx, "", false, true) }
	for _, change := range []struct {
		what   string
		target func(context.Context) error
	}{
		{"authz off", off},
		{"authz on", b.authz},
		{"90 % delayed", most},
		{"50 % delayed", b.fault},
		{"authz strict", strict},
		{"authz not strict", b.authz},
		{"authz off again", off},
		{"fault off", func(ctx context.Context) error { return b.Fault(ctx, params.DefaultFault(), true) }},
	} {
		b.do(change.what, change.target)
	}
	cancel()
	sending.Wait()
	for who, got := range map[string]*answers{"the gateway": fromGateway, names.AppA: fromAppa} {
		t.Logf("through %s: %v", who, got.count)
		if len(got.count) != 1 || got.count["200"] == 0 {
			t.Errorf("requests of %s were answered %v, want only 200; the others came at %q", who, got.count, got.bad)
		}
	}
	if fromGateway.delayed == 0 {
		t.Error("no request was delayed, so none was in flight for long")
	}

	// A waypoint itself cannot be removed without a failed request: istiod takes the Service out of its configuration
	// while clients still have connections through it. But it can be created again at once.
	b.do("waypoint off", func(ctx context.Context) error { return b.Waypoint(ctx, true) })
	b.do("waypoint on at once", b.waypoint)
	b.answers(http.MethodGet, address, http.StatusOK)
}

// answers counts what requests were answered with.
type answers struct {
	mu      sync.Mutex
	count   map[string]int
	delayed int
	bad     []string // when those came that are not 200
}

func newAnswers() *answers { return &answers{count: map[string]int{}} }

func (a *answers) add(answer string, requests int, took time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.count[answer] += requests
	if answer != "200" {
		a.bad = append(a.bad, time.Now().Format("04:05.000 ")+answer)
	}
	if took > params.DefaultFault().Delay {
		a.delayed += requests
	}
}

var fortioCode = regexp.MustCompile(`(?m)^Code +(\S+) : (\d+) `)

// addFortio reads the table of status codes that fortio prints at the end; an error of a connection has the code -1.
func (a *answers) addFortio(printed string) {
	found := fortioCode.FindAllStringSubmatch(printed, -1)
	if len(found) == 0 {
		a.add(printed, 1, 0)
	}
	for _, match := range found {
		n, err := strconv.Atoi(match[2])
		if err != nil {
			a.add(printed, 1, 0)
			continue
		}
		a.add(match[1], n, 0)
	}
}

// throughGateway sends one request after the other on one connection until ctx ends. The last one is waited for.
func throughGateway(ctx context.Context, t *testing.T, address string, got *answers) {
	client := &http.Client{Transport: &http.Transport{}, Timeout: time.Minute}
	defer client.CloseIdleConnections()
	for ctx.Err() == nil {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+address+"/headers",
			http.NoBody)
		if err != nil {
			t.Error(err)
			return
		}
		request.Host = names.Host
		began := time.Now()
		response, err := client.Do(request)
		if err != nil {
			got.add(err.Error(), 1, 0)
			continue
		}
		if _, err = io.Copy(io.Discard, response.Body); err != nil {
			got.add(err.Error(), 1, 0)
		}
		_ = response.Body.Close()
		got.add(strconv.Itoa(response.StatusCode), 1, time.Since(began))
		select { // requests that no lesson delays must not take all of the machine
		case <-ctx.Done():
		case <-time.After(50 * time.Millisecond):
		}
	}
}
