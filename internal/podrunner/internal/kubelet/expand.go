package kubelet

import "strings"

// expand replaces $(NAME) by a variable's value, as the Kubernetes API defines it for command, args and env: $$ is a
// dollar, and a reference to a variable that does not exist stays as it is.
func expand(text string, lookup func(string) (string, bool)) string {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '$' || i+1 == len(text) {
			out.WriteByte(text[i])
			continue
		}
		switch text[i+1] {
		case '$':
			out.WriteByte('$')
			i++
		case '(':
			end := strings.IndexByte(text[i+2:], ')')
			if end < 0 {
				out.WriteByte('$')
				continue
			}
			name := text[i+2 : i+2+end]
			if value, known := lookup(name); known {
				out.WriteString(value)
			} else {
				out.WriteString("$(" + name + ")")
			}
			i += end + 2
		default:
			out.WriteByte('$')
		}
	}
	return out.String()
}

// expandAll expands each of a list.
func expandAll(texts []string, lookup func(string) (string, bool)) []string {
	out := make([]string, len(texts))
	for i, text := range texts {
		out[i] = expand(text, lookup)
	}
	return out
}
