// Package observe reads the waypoint's own evidence: the requests in its access log and its counters. They show that a
// request went through the waypoint, and which identity its caller had there.
package observe

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"ambientlab/internal/probe/traffic"
)

// Crossing is one line of the waypoint's access log: a request that went through it, or that it answered itself.
type Crossing struct {
	At           time.Time
	Method, Path string
	Status       int
	// Details and Flags are Envoy's reasons, such as rbac_access_denied_matched_policy[none] and DI (delay injected).
	Details, Flags string
	// Run is the run ID that the request carried, empty for other traffic; Agent its User-Agent.
	Run, Agent string
	// Principal is the SPIFFE ID of the caller as the waypoint identified it; empty where the log's format does not
	// tell.
	Principal string
	Upstream  string
	// Own is how long the answer took without a delay by the waypoint; OwnKnown is false where the log does not tell.
	Own      time.Duration
	OwnKnown bool
}

// line holds the names of Istio's JSON access-log format, and the two that the lab adds.
type line struct {
	StartTime string `json:"start_time"`
	Method    string `json:"method"`
	Path      string `json:"path"`
	Code      any    `json:"response_code"`
	Details   string `json:"response_code_details"`
	Flags     string `json:"response_flags"`
	Agent     string `json:"user_agent"`
	Upstream  string `json:"upstream_host"`
	Duration  any    `json:"duration"`
	Service   any    `json:"upstream_service_time"`
	Run       string `json:"lab_run"`
	Principal string `json:"peer_principal"`
}

// text matches Istio's default text format (pilot/pkg/model, EnvoyTextLogFormat): it begins with the time, the request
// and the status, and holds the user agent as its sixth quoted field, after request, failure reason and forwarded-for.
var text = regexp.MustCompile(
	`^\[([^\]]+)\] "(\S+) (\S+) [^"]*" (\d+) (\S+) (\S+) \S+ "[^"]*" \S+ \S+ (\S+) (\S+) ` +
		`"[^"]*" "([^"]*)" "[^"]*" "[^"]*" "([^"]*)"`)

// Parse reads one line of a proxy's log. Lines that are no HTTP request's access log are not ok.
func Parse(raw string) (crossing Crossing, ok bool) {
	// Container runtimes and istio's agent may put something before the object.
	if i := strings.IndexByte(raw, '{'); i >= 0 && strings.HasSuffix(strings.TrimSpace(raw), "}") {
		var l line
		if json.Unmarshal([]byte(raw[i:]), &l) == nil && l.Method != "" && l.StartTime != "" {
			crossing = Crossing{
				Method: l.Method, Path: l.Path, Details: absent(l.Details), Flags: absent(l.Flags),
				Agent:    absent(l.Agent),
				Upstream: absent(l.Upstream), Run: absent(l.Run), Principal: absent(l.Principal),
			}
			switch code := l.Code.(type) {
			case string:
				crossing.Status, _ = strconv.Atoi(code)
			case float64:
				crossing.Status = int(code)
			}
			crossing.At, _ = time.Parse(time.RFC3339Nano, l.StartTime)
			crossing.setOwn(fmt.Sprint(l.Service), fmt.Sprint(l.Duration))
			ok = true
		}
	} else if m := text.FindStringSubmatch(raw); m != nil {
		crossing = Crossing{
			Method: m[2], Path: m[3], Flags: absent(m[5]), Details: absent(m[6]), Agent: absent(m[9]),
			Upstream: absent(m[10]),
		}
		crossing.Status, _ = strconv.Atoi(m[4])
		crossing.At, _ = time.Parse(time.RFC3339Nano, m[1])
		crossing.setOwn(m[8], m[7])
		ok = true
	}
	// CONNECT is the tunnel that the requests come in, not one of them; "-" is a connection.
	if !ok || crossing.Method == "CONNECT" || crossing.Method == "-" {
		return Crossing{}, false
	}
	if crossing.Run == "" && strings.HasPrefix(crossing.Agent, traffic.AgentPrefix) {
		crossing.Run = strings.TrimPrefix(crossing.Agent, traffic.AgentPrefix)
	}
	return crossing, true
}

// ViaUpstream are the details of an answer that came from the application.
const ViaUpstream = "via_upstream"

// setOwn reads how long the answer took by itself: the time that Envoy's router waited for it (the header
// x-envoy-upstream-service-time), which begins after the delay of the fault filter; without it the whole duration of a
// request that was not delayed. Both are in milliseconds.
func (c *Crossing) setOwn(service, duration string) {
	if c.Details != ViaUpstream {
		return
	}
	text := service
	if _, err := strconv.Atoi(service); err != nil && !strings.Contains(c.Flags, "DI") {
		text = duration
	}
	if milliseconds, err := strconv.Atoi(text); err == nil {
		c.Own, c.OwnKnown = time.Duration(milliseconds)*time.Millisecond, true
	}
}

func absent(value string) string {
	if value == "-" {
		return ""
	}
	return value
}

// Counter is a counter of a proxy; some proxies are set to hide some of them.
type Counter struct {
	Value uint64
	Known bool
}

// Counters are the waypoint's at one time.
type Counters struct {
	// Pods are the waypoint's pods, by incarnation (see traffic.Pod), whose counters are summed here.
	Pods []string
	// Requests counts what came in for the services behind the waypoint, Allowed and Denied what its RBAC filter
	// decided, Delayed the delays that its fault filter put in.
	Requests, Allowed, Denied, Delayed Counter
}

// Since gives how far a counter has moved; not known unless it was known at the end. A counter that appears only later,
// as Envoy makes them when it needs them, began at zero.
func (c Counter) Since(before Counter) Counter {
	if !c.Known || c.Value < before.Value {
		return Counter{}
	}
	return Counter{Value: c.Value - before.Value, Known: true}
}

// StatsFilter is the regular expression that the proxy's /stats is asked with.
const StatsFilter = `^http\..*(downstream_rq_total|rbac\.(allowed|denied)|fault\.delays_injected)$`

// AddStats adds the counters of one proxy's /stats?format=json to the sums. Only the listeners for services behind the
// waypoint count: their HTTP managers are named inbound…, unlike those of the tunnel and of the admin port
// (pilot/pkg/networking/core, inboundChainConfig.StatPrefix).
func (c *Counters) AddStats(answer []byte) error {
	var stats struct {
		Stats []struct {
			Name  string          `json:"name"`
			Value json.RawMessage `json:"value"`
		} `json:"stats"`
	}
	if err := json.Unmarshal(answer, &stats); err != nil {
		return err
	}
	for _, s := range stats.Stats {
		value, err := strconv.ParseUint(string(s.Value), 10, 64)
		if err != nil || !strings.HasPrefix(s.Name, "http.inbound") {
			continue
		}
		switch {
		case strings.HasSuffix(s.Name, ".downstream_rq_total"):
			c.Requests.add(value)
		case strings.HasSuffix(s.Name, "rbac.allowed"):
			c.Allowed.add(value)
		case strings.HasSuffix(s.Name, "rbac.denied"):
			c.Denied.add(value)
		case strings.HasSuffix(s.Name, "fault.delays_injected"):
			c.Delayed.add(value)
		}
	}
	return nil
}

func (c *Counter) add(value uint64) {
	c.Value += value
	c.Known = true
}
