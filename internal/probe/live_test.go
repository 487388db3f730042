package probe_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	. "ambientlab/internal/probe"
)

func TestTrafficShowsBothModes(t *testing.T) {
	s := newSim(faultOnly)
	var out bytes.Buffer
	sum, err := Traffic(t.Context(), s.env(faultOnly), Live{From: Appa, RPS: 10, Count: 120, Out: &out})
	if err != nil {
		t.Fatal(err)
	}
	if sum.Sent != 120 || sum.Delayed < 30 || sum.Delayed > 90 || sum.Statuses[200] != 120 {
		t.Errorf("summary %d sent, %d delayed, %v", sum.Sent, sum.Delayed, sum.Statuses)
	}
	for _, want := range []string{
		"GET /headers from appa", "#120", "delayed", "120 × 200", "95 % interval",
		"2s–2.125s", "120 of them went through the waypoint, with the identity " +
			"spiffe://cluster.local/ns/default/sa/appa",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\x1b") {
		t.Error("escape sequences without a terminal")
	}
}

func TestTrafficEndsWithItsContextAndSaysWhatItSaw(t *testing.T) {
	s := newSim(authzOnly)
	ctx, cancel := context.WithCancel(t.Context())
	s.cancel = cancel
	var out bytes.Buffer
	sum, err := Traffic(ctx, s.env(authzOnly),
		Live{From: Gateway, Method: "POST", Path: "/post", Out: &out, Terminal: true})
	if err != nil || sum.Sent == 0 {
		t.Fatalf("%d sent, %v", sum.Sent, err)
	}
	for _, want := range []string{"the waypoint's policy", "10 × 403", "\x1b["} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}

func TestTrafficRefusesAndFails(t *testing.T) {
	s := newSim(waypoint)
	for _, live := range []Live{{From: Outsider}, {From: Appa, RPS: 1000}, {From: Appa, Count: -1}} {
		live.Out = &bytes.Buffer{}
		if _, err := Traffic(t.Context(), s.env(waypoint), live); err == nil {
			t.Errorf("%+v was accepted", live)
		}
	}
	s.lost = true
	var out bytes.Buffer
	if _, err := Traffic(t.Context(), s.env(waypoint), Live{From: Appa, Out: &out}); err == nil ||
		!strings.Contains(out.String(), "10 requests") {
		t.Errorf("error %v, output %s", err, out.String())
	}
	s.unsent = errBroken
	if _, err := Traffic(t.Context(), s.env(waypoint), Live{From: Appa, Out: &out}); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
	if _, err := FirstDelayed(t.Context(), s.env(waypoint), Appa, *faultOnly.Fault); !errors.Is(err, errBroken) {
		t.Errorf("error %v", err)
	}
}

func TestEffects(t *testing.T) {
	on, err := FirstDelayed(t.Context(), newSim(faultOnly).env(faultOnly), Appa, *faultOnly.Fault)
	if err != nil || on.Requests < 6 {
		t.Errorf("%+v %v", on, err)
	}
	gone, err := NoneDelayed(t.Context(), newSim(waypoint).env(waypoint), Gateway, *faultOnly.Fault)
	if err != nil || gone.Requests != 20 {
		t.Errorf("%+v %v", gone, err)
	}
	if _, err := FirstDelayed(t.Context(), newSim(takenOut).env(takenOut), Appa, *faultOnly.Fault); err == nil ||
		!strings.Contains(err.Error(), "403") {
		t.Errorf("waiting for a delay of requests that are denied: %v", err)
	}
	s := newSim(faultOnly)
	s.lost = true
	if _, err := FirstDelayed(t.Context(), s.env(faultOnly), Appa, *faultOnly.Fault); err == nil {
		t.Error("lost results went well")
	}
}

func TestHistogram(t *testing.T) {
	got := Histogram([]time.Duration{time.Millisecond, 2 * time.Millisecond, 1995 * time.Millisecond, 9 * time.Second},
		2*time.Second, 10)
	want := "     0s–125ms    │██████████ 2\n                 ┊ nothing\n     2s–2.125s   │█████ 1\n                 " +
		"┊ nothing\n 2.375s–2.5s     │█████ 1\n"
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if Histogram(nil, time.Second, 10) != "" {
		t.Error("a histogram of nothing")
	}
}
