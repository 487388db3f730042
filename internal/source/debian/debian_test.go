package debian

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParsePlan(t *testing.T) {
	const plan = `NOTE: This is only a simulation!
Inst gcc-12-base (12.2.0-14+deb12u1 Debian:12.15/oldstable [amd64]) []
Inst libgmp10 [2:6.2.0] (2:6.2.1+dfsg1-1.1 Debian:12.15/oldstable, Debian-Security:12/oldstable-security [amd64])
Inst netbase (6.4 Debian:12.15/oldstable [all])
Conf netbase (6.4 Debian:12.15/oldstable [all])
Inst broken
`
	got := parsePlan([]byte(plan))
	want := []Package{
		{Name: "gcc-12-base", Version: "12.2.0-14+deb12u1", Architecture: "amd64"},
		{Name: "libgmp10", Version: "2:6.2.1+dfsg1-1.1", Architecture: "amd64"},
		{Name: "netbase", Version: "6.4", Architecture: "all"},
	}
	if len(got) != len(want) {
		t.Fatalf("got %v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
	if name := got[1].fileName(); name != "libgmp10_2%3a6.2.1+dfsg1-1.1_amd64.deb" {
		t.Errorf("its file is %s", name)
	}
}

func TestUsrMerged(t *testing.T) {
	for in, want := range map[string]string{
		"./":                               "",
		"./bin/sh":                         "usr/bin/sh",
		"./lib64/ld-linux-x86-64.so.2":     "usr/lib64/ld-linux-x86-64.so.2",
		"./usr/lib/x86_64-linux-gnu/libc6": "usr/lib/x86_64-linux-gnu/libc6",
		"./libexec/x":                      "libexec/x",
		"/usr/lib64/../lib/x86_64-linux-gnu/ld.so": "usr/lib/x86_64-linux-gnu/ld.so",
		"/lib/x86_64-linux-gnu/libc.so.6":          "usr/lib/x86_64-linux-gnu/libc.so.6",
		"/etc/alternatives/iptables":               "etc/alternatives/iptables",
		"./../etc/passwd":                          "etc/passwd",
	} {
		if got := UsrMerged(in); got != want {
			t.Errorf("%s became %q, not %q", in, got, want)
		}
	}
}

// One package's files: what is dropped, what is moved, and that neither time nor owner's name is kept.
func TestAddTar(t *testing.T) {
	var deb bytes.Buffer
	in := tar.NewWriter(&deb)
	for _, h := range []*tar.Header{
		{Name: "./", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./sbin/", Typeflag: tar.TypeDir, Mode: 0o755},
		{Name: "./sbin/nft", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 3, ModTime: time.Now(), Uname: "root"},
		{Name: "./sbin/same", Typeflag: tar.TypeLink, Linkname: "./sbin/nft"},
		{Name: "./usr/share/doc/nft/copyright", Typeflag: tar.TypeReg},
		{Name: "./usr/share/doc/nft/changelog.gz", Typeflag: tar.TypeReg},
		{Name: "./usr/share/man/man1/nft.1.gz", Typeflag: tar.TypeReg},
	} {
		if err := in.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := in.Write([]byte("nft")); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := in.Close(); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	m := &merger{tar: tar.NewWriter(&out), seen: map[string]bool{}}
	if err := errors.Join(m.addTar(tar.NewReader(&deb)), m.tar.Close()); err != nil {
		t.Fatal(err)
	}
	var got []string
	r := tar.NewReader(&out)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if h.ModTime.Unix() != 0 || h.Uname != "" {
			t.Errorf("%s: time %s, owner %q", h.Name, h.ModTime, h.Uname)
		}
		got = append(got, h.FileInfo().Mode().String()+" "+strings.TrimSuffix(h.Name+" "+h.Linkname, " "))
	}
	want := "urwxr-xr-x usr/sbin/nft|---------- usr/sbin/same usr/sbin/nft|---------- usr/share/doc/nft/copyright"
	if strings.Join(got, "|") != want {
		t.Errorf("got %s", strings.Join(got, "|"))
	}
}

// A package that was altered in the cache does not get into a layer.
func TestVerify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.deb")
	if err := os.WriteFile(path, []byte("altered"), 0o644); err != nil {
		t.Fatal(err)
	}
	err := Package{File: path, SHA256: strings.Repeat("0", 64)}.verify()
	if err == nil || !strings.Contains(err.Error(), "x.deb") {
		t.Errorf("the error is %v", err)
	}
}
