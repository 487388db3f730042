package params

import (
	"math"
	"strings"
	"testing"
	"time"

	"ambientlab/internal/problem"
)

func TestFaultValidate(t *testing.T) {
	if err := DefaultFault().Validate(); err != nil {
		t.Errorf("the default: %v", err)
	}
	for _, good := range []Fault{
		{Percent: 100, Delay: time.Minute, Path: "/"},
		{Percent: 0.0001, Delay: 10 * time.Millisecond, Path: "/a/b"},
	} {
		if err := good.Validate(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for _, tc := range []struct {
		fault Fault
		says  string
	}{
		{Fault{Percent: 0, Delay: time.Second, Path: "/"}, "-percent=0"},
		{Fault{Percent: 0.00009, Delay: time.Second, Path: "/"}, "-percent=9e-05"},
		{Fault{Percent: -1, Delay: time.Second, Path: "/"}, "-percent=-1"},
		{Fault{Percent: math.NaN(), Delay: time.Second, Path: "/"}, "-percent=NaN"},
		{Fault{Percent: 100.01, Delay: time.Second, Path: "/"}, "-percent=100.01"},
		{Fault{Percent: 50, Delay: 0, Path: "/"}, "-delay=0s"},
		{Fault{Percent: 50, Delay: 9 * time.Millisecond, Path: "/"}, "-delay=9ms"},
		{Fault{Percent: 50, Delay: time.Minute + 1, Path: "/"}, "-delay=1m0"},
		{Fault{Percent: 50, Delay: time.Second, Path: "headers"}, `-path="headers"`},
		{Fault{Percent: 50, Delay: time.Second, Path: `/a"b`}, "-path="},
		{Fault{Percent: 50, Delay: time.Second, Path: "/a?b"}, "-path="},
	} {
		if err := tc.fault.Validate(); !problem.Is(err, problem.SettingInvalid) ||
			!strings.Contains(err.Error(), tc.says) {
			t.Errorf("%+v: got %v, want a refusal of %s", tc.fault, err, tc.says)
		}
	}
	every := Fault{Percent: 0, Delay: 0, Path: ""}.Validate()
	for _, flag := range []string{"-percent", "-delay", "-path"} {
		if every == nil || !strings.Contains(every.Error(), flag) {
			t.Errorf("got %v, want %s named too", every, flag)
		}
	}
}

func TestOtherPath(t *testing.T) {
	for path, want := range map[string]string{"/headers": "/ip", "/ip": "/headers", "/i": "/headers", "/": "/ip"} {
		if got := (Fault{Path: path}).OtherPath(); got != want {
			t.Errorf("next to %s: %s, want %s", path, got, want)
		}
	}
}

func TestNewAuthz(t *testing.T) {
	for _, tc := range []struct{ without, allowed, taken string }{
		{"", "appa,gateway-istio", ""},
		{"appa", "gateway-istio", "appa"},
		{"gateway-istio", "appa", "gateway-istio"},
		{"appa,gateway-istio", "", "appa,gateway-istio"},
		{"gateway-istio appa", "", "appa,gateway-istio"},
		{"appa,appa", "gateway-istio", "appa"},
	} {
		got, err := NewAuthz(tc.without, true)
		if err != nil || strings.Join(got.Allowed, ",") != tc.allowed || strings.Join(got.Without(), ",") != tc.taken ||
			!got.Strict {
			t.Errorf("without %q: got %+v without %v, %v; want %q", tc.without, got, got.Without(), err, tc.allowed)
		}
		for _, account := range Callers() {
			if got.Allows(account) == strings.Contains(tc.without, account) {
				t.Errorf("without %q: allows %s: %v", tc.without, account, got.Allows(account))
			}
		}
	}
	if _, err := NewAuthz("appb", false); !problem.Is(err, problem.SettingInvalid) {
		t.Errorf("appb was accepted: %v", err)
	}
}

func TestPrincipals(t *testing.T) {
	got := Authz{Allowed: []string{"appa", "gateway-istio"}}.Principals("lab.example", "shop")
	if want := "lab.example/ns/shop/sa/appa lab.example/ns/shop/sa/gateway-istio"; strings.Join(got, " ") != want {
		t.Errorf("got %v, want %s", got, want)
	}
}
