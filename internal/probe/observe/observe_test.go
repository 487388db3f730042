package observe_test

import (
	"context"
	"errors"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/probe/observe"
	"ambientlab/internal/probe/traffic"
)

//revive:disable:line-length-limit these lines are as the proxies write them

const (
	labLine = `{"response_code":"200","start_time":"2026-11-23T07:00:00.123Z","method":"GET","path":"/headers",` +
		`"duration":"2003","response_flags":"DI","response_code_details":"via_upstream","user_agent":"ambientlab/r1",` +
		`"lab_run":"r1","peer_principal":"spiffe://cluster.local/ns/default/sa/appa","upstream_host":"10.0.0.3:8080"}`
	// delayedLine is of a request that was delayed by 2 s, and took appb 7 ms; fastLine of one that was not delayed.
	delayedLine = `{"response_code":"418","start_time":"2026-11-23T07:00:00Z","method":"GET","path":"/status/418",` +
		`"duration":"2008","upstream_service_time":"7","response_flags":"DI","response_code_details":"via_upstream",` +
		`"user_agent":"ambientlab/r4"}`
	fastLine = `{"response_code":418,"start_time":"2026-11-23T07:00:00Z","method":"GET","path":"/status/418",` +
		`"duration":9,"response_flags":"-","response_code_details":"via_upstream","user_agent":"ambientlab/r4"}`
	denied = `2026-11-23T07:00:01Z stdout F {"response_code":403,"start_time":"2026-11-23T07:00:01.000Z",` +
		`"method":"POST","path":"/post","user_agent":"ambientlab/r2",` +
		`"response_code_details":"rbac_access_denied_matched_policy[none]","peer_principal":"-","response_flags":"-"}`
	textLine = `[2026-11-23T07:00:02.000Z] "GET /ip HTTP/1.1" 200 - via_upstream - "-" ` +
		`0 35 4 3 "-" "ambientlab/r3" "0d7c" "appb:8000" ` +
		`"10.0.0.3:8080" inbound-vip|8000|http|appb.default.svc.cluster.local ` +
		`10.0.0.4:1 10.0.0.5:8000 10.0.0.2:1 - default`
	foreign = `[2026-11-23T07:00:03.000Z] "GET /ip HTTP/1.1" 200 - via_upstream - "-" ` +
		`0 35 4 3 "-" "curl/8.1" "0d7c" "appb:8000" "10.0.0.3:8080" x 10.0.0.4:1 10.0.0.5:8000 10.0.0.2:1 - default`
	connect = `{"response_code":"200","start_time":"2026-11-23T07:00:00.123Z","method":"CONNECT","path":"-"}`
	noise   = `2026-11-23T07:00:00.000000Z	info	Envoy proxy is ready {"a":1}`
)

//revive:enable:line-length-limit

func TestParse(t *testing.T) {
	for raw, want := range map[string]observe.Crossing{
		labLine: {
			At: time.Date(2026, 11, 23, 7, 0, 0, 123e6, time.UTC), Method: "GET", Path: "/headers", Status: 200,
			Details: "via_upstream", Flags: "DI",
			Run: "r1", Agent: "ambientlab/r1", Principal: "spiffe://cluster.local/ns/default/sa/appa",
			Upstream: "10.0.0.3:8080",
		},
		delayedLine: {
			At: time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC), Method: "GET", Path: "/status/418", Status: 418,
			Details: "via_upstream", Flags: "DI",
			Run: "r4", Agent: "ambientlab/r4", Own: 7 * time.Millisecond, OwnKnown: true,
		},
		fastLine: {
			At: time.Date(2026, 11, 23, 7, 0, 0, 0, time.UTC), Method: "GET", Path: "/status/418", Status: 418,
			Details: "via_upstream",
			Run:     "r4", Agent: "ambientlab/r4", Own: 9 * time.Millisecond, OwnKnown: true,
		},
		denied: {
			At: time.Date(2026, 11, 23, 7, 0, 1, 0, time.UTC), Method: "POST", Path: "/post", Status: 403,
			Details: "rbac_access_denied_matched_policy[none]", Run: "r2", Agent: "ambientlab/r2",
		},
		textLine: {
			At: time.Date(2026, 11, 23, 7, 0, 2, 0, time.UTC), Method: "GET", Path: "/ip", Status: 200,
			Details: "via_upstream",
			Run:     "r3", Agent: "ambientlab/r3", Upstream: "10.0.0.3:8080", Own: 3 * time.Millisecond, OwnKnown: true,
		},
		foreign: {
			At: time.Date(2026, 11, 23, 7, 0, 3, 0, time.UTC), Method: "GET", Path: "/ip", Status: 200,
			Details: "via_upstream",
			Agent:   "curl/8.1", Upstream: "10.0.0.3:8080", Own: 3 * time.Millisecond, OwnKnown: true,
		},
	} {
		if got, ok := observe.Parse(raw); !ok || got != want {
			t.Errorf("%s\ngot  %+v\nwant %+v", raw, got, want)
		}
	}
	for _, raw := range []string{connect, noise, "", "{", `{"method":"GET"}`, `{"a":`} {
		if got, ok := observe.Parse(raw); ok {
			t.Errorf("%q was taken for %+v", raw, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, raw := range []string{labLine, denied, textLine, foreign, connect, noise} {
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		if crossing, ok := observe.Parse(raw); ok && crossing.Method == "" {
			t.Errorf("%q is a request without a method", raw)
		}
	})
}

const stats = `{"stats":[
{"name":"http.inbound_0.0.0.0_8000;.downstream_rq_total","value":20},
{"name":"http.inbound-x.downstream_rq_total","value":1},
{"name":"http.connect_terminate.downstream_rq_total","value":99},
{"name":"http.admin.downstream_rq_total","value":99},
{"name":"http.inbound_0.0.0.0_8000;.rbac.denied","value":4},
{"name":"http.inbound_0.0.0.0_8000;.rbac.allowed","value":16},
{"name":"http.inbound_0.0.0.0_8000;.fault.delays_injected","value":8},{"histograms":{}}]}`

func TestCounters(t *testing.T) {
	var c observe.Counters
	if err := c.AddStats([]byte(stats)); err != nil {
		t.Fatal(err)
	}
	if c.Requests.Value != 21 || c.Denied.Value != 4 || c.Allowed.Value != 16 || c.Delayed.Value != 8 ||
		!c.Requests.Known {
		t.Errorf("%+v", c)
	}
	if err := c.AddStats([]byte("no")); err == nil {
		t.Error("no JSON went well")
	}
	known := func(v uint64) observe.Counter { return observe.Counter{Value: v, Known: true} }
	for _, s := range []struct{ after, before, want observe.Counter }{
		{known(9), known(4), known(5)},
		{known(9), observe.Counter{}, known(9)},
		{known(3), known(4), observe.Counter{}}, // the proxy was restarted
		{observe.Counter{}, known(4), observe.Counter{}},
	} {
		if got := s.after.Since(s.before); got != s.want {
			t.Errorf("%v since %v is %v", s.after, s.before, got)
		}
	}
}

// pods is a cluster in which only the waypoint's pods exist.
type pods struct {
	traffic.Cluster
	list    []traffic.Pod
	listErr error
	logs    map[string]string
	follow  bool
	logErr  error
}

func (p pods) Attach(context.Context, string, string, string, io.Writer) error {
	return errors.ErrUnsupported
}

func (p pods) Pods(context.Context, string, string) ([]traffic.Pod, error) { return p.list, p.listErr }

func (p pods) Logs(_ context.Context, _, pod, container string, _ time.Time) (io.ReadCloser, error) {
	if container != "istio-proxy" || p.logErr != nil {
		return nil, errors.Join(errors.New("no such log"), p.logErr)
	}
	if !p.follow {
		return io.NopCloser(strings.NewReader(p.logs[pod])), nil
	}
	reader, writer := io.Pipe()
	go func() { _, _ = io.WriteString(writer, p.logs[pod]) }() // and then stays open, as a followed log does
	return reader, nil
}

func two() []traffic.Pod {
	return []traffic.Pod{
		{Name: "w1", UID: "a", Ready: true},
		{Name: "w2", UID: "b", Ready: true},
		{Name: "w3", UID: "c"},
	}
}

// admin answers for an Envoy.
type admin struct {
	answer string
	err    error
	asked  *[]string
	closed *int
}

func (a admin) Get(_ context.Context, path string) ([]byte, error) {
	*a.asked = append(*a.asked, path)
	return []byte(a.answer), a.err
}

func (a admin) Close() error {
	*a.closed++
	return nil
}

func TestWaypointCounters(t *testing.T) {
	var opened, asked []string
	closed := 0
	open := func(answer string, err error) func(string) observe.Admin {
		return func(pod string) observe.Admin {
			opened = append(opened, pod)
			return admin{answer, err, &asked, &closed}
		}
	}
	w := &observe.Waypoint{Cluster: pods{list: two()}, OpenAdmin: open(stats, nil)}
	for range 2 {
		c, err := w.Counters(t.Context())
		if err != nil || c.Requests.Value != 42 || !slices.Equal(c.Pods, []string{"w1/a/0", "w2/b/0"}) {
			t.Errorf("%+v %v", c, err)
		}
	}
	want := "/stats?format=json&filter=" + url.QueryEscape(observe.StatsFilter)
	if !slices.Equal(opened, []string{"w1", "w2"}) || !slices.Equal(asked, slices.Repeat([]string{want}, 4)) {
		t.Errorf("opened %q, asked %q", opened, asked)
	}
	// A pod that was restarted has another Envoy.
	restarted := two()
	restarted[0].Restarts = 1
	w.Cluster = pods{list: restarted}
	if _, err := w.Counters(t.Context()); err != nil || len(opened) != 3 || opened[2] != "w1" {
		t.Errorf("opened %q, %v", opened, err)
	}
	if err := w.Close(); err != nil || closed != 3 {
		t.Errorf("%d closed, %v", closed, err)
	}
	for name, broken := range map[string]*observe.Waypoint{
		"no list":    {Cluster: pods{listErr: errors.New("x")}, OpenAdmin: open(stats, nil)},
		"no answer":  {Cluster: pods{list: two()}, OpenAdmin: open("", errors.New("x"))},
		"no numbers": {Cluster: pods{list: two()}, OpenAdmin: open("404", nil)},
	} {
		if _, err := broken.Counters(t.Context()); err == nil {
			t.Errorf("%s: went well", name)
		}
	}
	c, err := (&observe.Waypoint{Cluster: pods{}}).Counters(t.Context())
	if err != nil || len(c.Pods) != 0 || c.Requests.Known {
		t.Errorf("without pods: %+v %v", c, err)
	}
}

func TestCrossings(t *testing.T) {
	logs := map[string]string{
		"w1": noise + "\n" + labLine + "\n" + connect + "\n",
		"w2": labLine + "\n" + foreign + "\n",
	}
	for _, follow := range []bool{false, true} {
		seen := 0
		w := &observe.Waypoint{Cluster: pods{list: two(), logs: logs, follow: follow}}
		err := w.Crossings(t.Context(), time.Now(), func(c observe.Crossing) bool {
			if c.Run == "r1" {
				seen++
			}
			return seen == 2
		})
		if err != nil || seen != 2 {
			t.Errorf("follow %v: %d seen, %v", follow, seen, err)
		}
	}
	// What does not come is waited for until the context ends, which is no error.
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	w := &observe.Waypoint{Cluster: pods{list: two(), logs: logs, follow: true}}
	if err := w.Crossings(ctx, time.Now(), func(observe.Crossing) bool { return false }); err != nil {
		t.Error(err)
	}
	for _, broken := range []pods{{listErr: errors.New("x")}, {list: two(), logErr: errors.New("x")}} {
		if err := (&observe.Waypoint{Cluster: broken}).Crossings(t.Context(), time.Now(),
			func(observe.Crossing) bool { return false }); err == nil {
			t.Errorf("%+v went well", broken)
		}
	}
}
