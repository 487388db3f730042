// Package redact removes secrets from text that leaves the machine: private keys, tokens, passwords, credentials of
// registries and kubeconfigs, Authorization and Cookie headers, and the names of home folders.
//
// It works in two ways. Known secrets are removed wherever they occur, as they are and in base64. What looks like a
// secret is removed by its form or by the name of its field.
package redact

import (
	"bytes"
	"encoding/base64"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
)

// Mark replaces a secret.
const Mark = "[redacted]"

// Redactor removes secrets. Its methods may be called from any goroutine.
type Redactor struct {
	known *strings.Replacer
}

// shortest is the shortest secret that is removed wherever it occurs. A shorter one would remove parts of words.
const shortest = 6

// longest is the longest known secret that is looked for. Longer values are found by their form.
const longest = 16 << 10

// New makes a Redactor that knows some secrets. home is the user's home folder, or empty; it becomes ~.
func New(secrets []string, home string) *Redactor {
	seen := map[string]bool{}
	var values []string
	for _, secret := range secrets {
		trimmed := strings.TrimSpace(secret)
		encoded := []byte(secret)
		for _, form := range []string{
			secret, trimmed, base64.StdEncoding.EncodeToString(encoded), base64.RawStdEncoding.EncodeToString(encoded),
			base64.URLEncoding.EncodeToString(encoded), base64.RawURLEncoding.EncodeToString(encoded),
		} {
			if len(form) >= shortest && len(form) <= longest && !seen[form] && len(trimmed) >= shortest {
				seen[form] = true
				values = append(values, form)
			}
		}
	}
	// A replacer compares in the order of its arguments: the longer value first, where one begins with the other.
	slices.SortFunc(values, func(a, b string) int { return len(b) - len(a) })
	var pairs []string
	for _, value := range values {
		pairs = append(pairs, value, Mark)
	}
	if home = filepath.Clean(home); filepath.IsAbs(home) && home != string(filepath.Separator) {
		pairs = append(pairs, home+"/", "~/", home+"\"", "~\"", home+"\n", "~\n")
	}
	return &Redactor{known: strings.NewReplacer(pairs...)}
}

// rule removes what matches. Only texts that hold one of its hints, in lower case, are searched.
type rule struct {
	hints   []string
	pattern func() *regexp.Regexp
	with    string
}

// pattern compiles an expression when it is first used: most runs redact nothing.
func pattern(expression string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expression) })
}

// value is a quoted text, in a JSON text too, or a word.
const value = `(?:\\*"(?:[^"\\\n]|\\[^"\n])*\\*"|'[^'\n]*'|[^\s,;}\]"'\\]+)`

// fieldName names what is secret in settings, environments and kubeconfigs.
const fieldName = `[a-z0-9_.-]*(?:passw(?:or)?d|passphrase|secret|token|api[-_]?key|private[-_]?key|access[-_]?key|` +
	`credentials?|client-key-data|client-certificate-data|identitytoken)|[a-z0-9_.-]*[-_]pass|_?auth`

// inText are rules for whole texts, since what they match may be several lines.
var inText = []rule{
	{
		hints: []string{"private key-----"},
		pattern: pattern(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----` +
			`(?:.*?-----END [A-Z0-9 ]*PRIVATE KEY-----|[A-Za-z0-9+/=\s\\]*)`),
		with: Mark,
	},
	{
		hints:   []string{"private key-----"}, // the end of a key whose beginning was cut off
		pattern: pattern(`[A-Za-z0-9+/=\s\\]*-----END [A-Z0-9 ]*PRIVATE KEY-----`), with: "\n" + Mark,
	},
	{
		hints:   []string{"authorization", "cookie"}, // a list of header values, as httpbin prints it
		pattern: pattern(`(?i)((?:proxy-)?authorization|(?:set-)?cookie)(\\*"[ \t]*:\s*)\[[^\]]*\]`),
		with:    `${1}${2}["` + Mark + `"]`,
	},
}

// inLines are rules for single lines.
var inLines = []rule{
	{
		hints:   []string{"ls0tls1crudjti"}, // "-----BEGIN " in base64
		pattern: pattern(`LS0tLS1CRUdJTi[A-Za-z0-9+/=_-]*`), with: Mark,
	},
	{
		hints:   []string{"eyj"}, // {" in base64: a JSON Web Token
		pattern: pattern(`eyJ[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]{4,}){1,2}`), with: Mark,
	},
	{
		hints: []string{"authorization", "cookie"},
		pattern: pattern(`(?i)\b((?:proxy-)?authorization|(?:set-)?cookie)` +
			`(\\*["']?[ \t]*[:=][ \t]*)(?:\\*"(?:[^"\\\n]|\\[^"\n])*\\*"|[^"\[\n][^"\n]*)`),
		with: "${1}${2}" + Mark,
	},
	{
		hints:   []string{"bearer ", "basic "},
		pattern: pattern(`(?i)\b(bearer|basic)[ ]+[A-Za-z0-9._~+/=-]{8,}`), with: "${1} " + Mark,
	},
	{
		hints:   []string{"@"}, // the user and password in a URL
		pattern: pattern(`(://)[^/\s:@"']*:[^/\s@"']+@`), with: "${1}" + Mark + "@",
	},
	{
		hints:   []string{"/home/", "/users/"},
		pattern: pattern(`/(?:home|Users)/[^/\s"':,;]+`), with: "~",
	},
	{
		hints:   []string{"/root"},
		pattern: pattern(`(^|[\s"'=:,(\[])/root(/|\b)`), with: "${1}~${2}",
	},
}

// field removes the value of a field with the name of a secret.
var field = rule{
	hints: []string{
		"pass", "secret", "token", "apikey", "api_key", "api-key", "private", "access", "credential", "client-", "auth",
	},
	pattern: pattern(`(?i)(^|[^a-z0-9_.-])(` + fieldName + `)(\\*["']?[ \t]*[:=][ \t]*)(` + value + `)`),
}

// harmless are values of such fields that are no secrets.
var harmless = pattern(`^(?:true|false|null|nil|none|yes|no|\{\}?|\[\]?|\||>-?|"+|'')$`)

// String is Bytes for a string.
func (r *Redactor) String(text string) string { return string(r.Bytes([]byte(text))) }

// Bytes gives a text without secrets.
func (r *Redactor) Bytes(text []byte) []byte {
	text = []byte(r.known.Replace(string(text)))
	lower := bytes.ToLower(text)
	for _, rule := range inText {
		if rule.hinted(lower) {
			text = rule.pattern().ReplaceAll(text, []byte(rule.with))
		}
	}
	var out bytes.Buffer
	out.Grow(len(text))
	for line := range bytes.Lines(text) {
		out.Write(redactLine(line))
	}
	return out.Bytes()
}

func redactLine(line []byte) []byte {
	lower := bytes.ToLower(line)
	for _, rule := range inLines {
		if rule.hinted(lower) {
			line = rule.pattern().ReplaceAll(line, []byte(rule.with))
		}
	}
	if !field.hinted(lower) {
		return line
	}
	return field.pattern().ReplaceAllFunc(line, func(match []byte) []byte {
		parts := field.pattern().FindSubmatch(match)
		if harmless().Match(parts[4]) || bytes.Contains(parts[4], []byte(Mark)) {
			return match
		}
		return bytes.Join([][]byte{parts[1], parts[2], parts[3], []byte(Mark)}, nil)
	})
}

func (r rule) hinted(lower []byte) bool {
	return slices.ContainsFunc(r.hints, func(hint string) bool { return bytes.Contains(lower, []byte(hint)) })
}

// secretName matches the name of a variable whose value is secret.
var secretName = pattern(`(?i)(?:^|[_.-])(?:` + fieldName + `|key|pat|pwd|pass)$`)

// IsSecretName tells whether the value of a variable of this name is most likely a secret.
func IsSecretName(name string) bool { return secretName().MatchString(name) }

// Environment gives the values of the variables of an environment, each NAME=value, whose names are those of secrets.
func Environment(environment []string) []string {
	var secrets []string
	for _, variable := range environment {
		if name, value, _ := strings.Cut(variable, "="); IsSecretName(name) {
			secrets = append(secrets, value)
		}
	}
	return secrets
}
