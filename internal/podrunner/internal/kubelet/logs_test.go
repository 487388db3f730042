package kubelet

import (
	"bytes"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/cri-client/pkg/logs"
)

// TestLog writes lines in parts, as a program does, and reads them back with the reader of kubectl logs.
func TestLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "c", "0.log")
	now := time.Unix(1000, 0)
	log, err := newLog(path, func() time.Time { now = now.Add(time.Second); return now })
	if err != nil {
		t.Fatal(err)
	}
	out, errs := log.stream("stdout"), log.stream("stderr")
	long := strings.Repeat("x", logLine+10)
	for _, part := range []string{"one", " line\ntwo\n", "\n", long + "\n", "no end"} {
		if n, err := out.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	_, _ = errs.Write([]byte("wrong\n"))
	_ = out.Close()
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	if err := logs.ReadLogs(t.Context(), path, "c", &logs.LogOptions{}, nil, &stdout, &stderr); err != nil {
		t.Fatal(err)
	}
	if want := "one line\ntwo\n\n" + long + "\nno end\n"; stdout.String() != want {
		t.Errorf("stdout %.80q", stdout.String())
	}
	if stderr.String() != "wrong\n" {
		t.Errorf("stderr %q", stderr.String())
	}
	stdout.Reset()
	if err := logs.ReadLogs(t.Context(), path, "c", &logs.LogOptions{Since: time.Unix(1006, 0), Timestamp: true}, nil,
		&stdout, &stdout); err != nil {
		t.Fatal(err)
	}
	want := "1970-01-01T00:16:46.000000000Z wrong\n1970-01-01T00:16:47.000000000Z no end\n"
	if stdout.String() != want {
		t.Errorf("since: %q", stdout.String())
	}
}

// TestLogRotates keeps the newest files only.
func TestLogRotates(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	now := time.Unix(1000, 0)
	log, err := newLog(path, func() time.Time { now = now.Add(time.Second); return now })
	if err != nil {
		t.Fatal(err)
	}
	out := log.stream("stdout")
	line := []byte(strings.Repeat("x", 8<<10) + "\n")
	for range (logFiles + 2) * logLimit / len(line) {
		_, _ = out.Write(line)
	}
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != logFiles {
		t.Errorf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		if info, err := file.Info(); err != nil || info.Size() > logLimit+int64(2*len(line)) {
			t.Errorf("%s is too large: %v", file.Name(), err)
		}
	}
}

func TestLogOptions(t *testing.T) {
	now := time.Unix(1000, 0)
	request := httptest.NewRequest(
		"GET",
		"/containerLogs/a/b/c?follow=true&tailLines=3&sinceSeconds=10&timestamps=true&previous=true",
		nil,
	)
	options, previous, err := logOptions(request, now)
	if err != nil || !previous || !options.Follow || !options.Timestamp || *options.TailLines != 3 ||
		!options.Since.Equal(time.Unix(990, 0)) {
		t.Errorf("%+v, %v, %v", options, previous, err)
	}
	for _, wrong := range []string{"tailLines=x", "limitBytes=-1", "sinceTime=yesterday"} {
		if _, _, err := logOptions(httptest.NewRequest("GET", "/?"+wrong, nil), now); err == nil ||
			!strings.Contains(err.Error(), fmt.Sprintf("%.5s", wrong)) {
			t.Errorf("%s: %v", wrong, err)
		}
	}
}
