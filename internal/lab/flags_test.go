package lab

import (
	"strings"
	"testing"

	"ambientlab/internal/problem"
)

//revive:disable:line-length-limit a table of command lines

func TestRepeatedFlags(t *testing.T) {
	for line, says := range map[string]string{
		"sm:fault -percent=30":                                "",
		"sm:fault -percent=30 -delay=1s":                      "",
		"sm:fault -percent=30 sm:verify sm:fault -percent=40": "",
		"-v -v sm:verify":                                     "",
		"-t 5m -v -v sm:verify":                               "",
		"sm:authz -without=appa -without=gateway-istio":       "",
		"sm:fault -percent=30 -percent=40": "sm:fault has -percent more than " +
			"once: 30, 40",
		"sm:fault -Percent=30 -percent=40":                                      "-percent more than once: 30, 40",
		"sm:fault -off -off":                                                    "-off more than once: true, true",
		"sm:fault -off -off=false":                                              "true, false",
		"sm:verify -out=a -out=b":                                               "sm:verify has -out",
		"SM:Traffic -rps=1 -rps=2":                                              "sm:traffic has -rps",
		"sm:authz -without=appa -without=gateway-istio sm:authz":                "accepted: one -without=appa,gateway-istio",
		"sm:authz -strict -strict":                                              "-strict",
		"sm:authz -without=appa sm:verify sm:authz -without=appa,gateway-istio": "",
		"sm:bundle -to=a -to=b sm:fault -path=/a -path=/b -percent=1 -percent=2": "sm:fault has -path more than " +
			"once: /a, /b",
	} {
		err := refuseRepeatedFlags(strings.Fields(line))
		if says == "" && err == nil {
			continue
		}
		if says == "" || !problem.Is(err, problem.SettingInvalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: got %v, want %q", line, err, says)
		}
	}
}

func TestListFlag(t *testing.T) {
	for _, tc := range []struct{ line, last, want string }{
		{"sm:authz", "", ""},
		{"sm:authz -without=appa", "appa", "appa"},
		{"sm:authz -without=appa -without=gateway-istio", "gateway-istio", "appa,gateway-istio"},
		{"sm:authz -without=appa -strict -without=gateway-istio", "gateway-istio", "appa,gateway-istio"},
		{"sm:authz -without=appa,gateway-istio", "appa,gateway-istio", "appa,gateway-istio"},
		{"sm:authz -without=appa sm:verify sm:authz -without=gateway-istio", "gateway-istio", "gateway-istio"},
		{"SM:Authz -Without=appa -without=gateway-istio", "gateway-istio", "appa,gateway-istio"},
		{"", "appa", "appa"}, // not called by a command line, as in a test
	} {
		if got := ListFlag(strings.Fields(tc.line), "authz", "without", tc.last); got != tc.want {
			t.Errorf("%s: got %q, want %q", tc.line, got, tc.want)
		}
	}
}
