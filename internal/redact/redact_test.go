package redact

import (
	"encoding/base64"
	"strings"
	"testing"
)

const secret = "Tr0ub4dorAnd3xyz"

func TestBytesRemovesSecretsByTheirForm(t *testing.T) {
	key := "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEI" + secret + "\n-----END EC PRIVATE KEY-----\n"
	for _, text := range []string{
		key,
		strings.ReplaceAll(key, "\n", `\n`),
		key[:50], // cut off in a log
		key[20:],
		"client-key-data: " + base64.StdEncoding.EncodeToString([]byte(key)),
		"Authorization: Bearer " + secret,
		"> authorization: Basic " + secret,
		`{"Authorization":"Bearer ` + secret + `","path":"/ip"}`,
		`{\"authorization\":\"` + secret + `\"}`,
		"\"Cookie\": [\n      \"session=" + secret + "\"\n    ],",
		"Cookie: a=b; session=" + secret,
		"set-cookie: session=" + secret + "; Path=/",
		"token: " + secret,
		`"identitytoken": "` + secret + `"`,
		`{"auths":{"registry.example.com":{"auth":"` + secret + `"}}}`,
		"DB_PASSWORD=" + secret,
		"--token=" + secret + " --other",
		`"GITHUB_TOKEN=` + secret + `"`,
		"password: '" + secret + "'",
		"pulling https://user:" + secret + "@registry.example.com/v2/",
		"sent Bearer " + secret,
		"eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJrdWJlcm5ldGVzIn0." + secret,
		"open /home/" + secret + "/config",
		"open /Users/" + secret + "/config",
	} {
		got := New(nil, "").String(text)
		if strings.Contains(got, secret) || strings.Contains(got, "MHcCAQEEI") {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}

func TestBytesKeepsOtherText(t *testing.T) {
	for _, text := range []string{
		"kind: AuthorizationPolicy\nmetadata:\n  name: appb-get-only\n",
		"automountServiceAccountToken: false\n",
		"imagePullSecrets:\n- name: pull\n",
		"secretName: istio-ca-secret\n",
		"GET http://127.0.0.1:8080/headers 200 via upstream\n",
		"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n",
		"tokens:\n  audience: istio-ca\n",
		"lab ambient: kind cluster ambient\n",
	} {
		if got := New(nil, "").String(text); got != text {
			t.Errorf("%q becomes %q", text, got)
		}
	}
}

func TestBytesRemovesKnownSecrets(t *testing.T) {
	r := New([]string{secret + "\n", "short", "  "}, "/srv/people/ada")
	text := "a " + secret + " b " + base64.StdEncoding.EncodeToString([]byte(secret+"\n")) + " short /srv/people/ada/x"
	if got, want := r.String(text), "a "+Mark+" b "+Mark+" short ~/x"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEnvironment(t *testing.T) {
	got := Environment([]string{
		"GITHUB_TOKEN=one", "AWS_SECRET_ACCESS_KEY=two", "DB_PASSWORD=three", "SM_CLUSTER=x",
		"KEYBOARD=de", "MONKEY=no",
	})
	if strings.Join(got, " ") != "one two three" {
		t.Errorf("got %v", got)
	}
}
