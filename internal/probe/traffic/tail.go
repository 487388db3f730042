package traffic

import "bytes"

// tail keeps the last part of what is written to it, enough for a diagnosis.
type tail struct{ buffer bytes.Buffer }

const tailSize = 64 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.buffer.Write(p)
	if extra := t.buffer.Len() - tailSize; extra > 0 {
		t.buffer.Next(extra)
	}
	return len(p), nil
}

func (t *tail) Bytes() []byte { return t.buffer.Bytes() }

func lastLine(text []byte) string {
	text = bytes.TrimSpace(text)
	if i := bytes.LastIndexByte(text, '\n'); i >= 0 {
		text = text[i+1:]
	}
	return string(text)
}
