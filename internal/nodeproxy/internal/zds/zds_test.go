package zds

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"istio.io/istio/pkg/zdsapi"
)

func encoded(t testing.TB, r *zdsapi.WorkloadRequest) []byte {
	b, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func add(uid string, info *zdsapi.WorkloadInfo) *zdsapi.WorkloadRequest {
	return &zdsapi.WorkloadRequest{
		Payload: &zdsapi.WorkloadRequest_Add{Add: &zdsapi.AddWorkload{Uid: uid, WorkloadInfo: info}},
	}
}

func TestDecode(t *testing.T) {
	file := os.NewFile(^uintptr(0), "not open")
	named := &zdsapi.WorkloadInfo{Name: "a", Namespace: "b", ServiceAccount: "c"}
	del := &zdsapi.WorkloadRequest{Payload: &zdsapi.WorkloadRequest_Del{Del: &zdsapi.DelWorkload{Uid: "u"}}}
	for name, c := range map[string]struct {
		in    []byte
		files []*os.File
		good  bool
	}{
		"add":                      {encoded(t, add("u", named)), []*os.File{file}, true},
		"add without namespace":    {encoded(t, add("u", named)), nil, false},
		"add with two namespaces":  {encoded(t, add("u", named)), []*os.File{file, file}, false},
		"add without uid":          {encoded(t, add("", named)), []*os.File{file}, false},
		"add without names":        {encoded(t, add("u", nil)), []*os.File{file}, false},
		"delete":                   {encoded(t, del), nil, true},
		"delete with a descriptor": {encoded(t, del), []*os.File{file}, false},
		"nothing":                  {nil, nil, false},
		"garbage":                  {[]byte{0xff, 0xff, 0xff}, nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := decode(c.in, c.files)
			if (err == nil) != c.good {
				t.Fatalf("error %v", err)
			}
			if err != nil && !errors.Is(err, errBadMessage) {
				t.Errorf("%v is not marked as a bad message", err)
			}
			if c.good && len(c.files) == 1 && m.netns != file {
				t.Error("the namespace was lost")
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encoded(f, add("u", &zdsapi.WorkloadInfo{Name: "a"})), 1)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, in []byte, n int) {
		files := make([]*os.File, max(0, min(n, 9)))
		m, err := decode(in, files)
		if err != nil {
			return
		}
		if a := m.req.GetAdd(); a != nil && (a.GetUid() == "" || len(files) != 1) {
			t.Errorf("accepted a pod %q with %d descriptors", a.GetUid(), len(files))
		}
	})
}

func FuzzDescriptors(f *testing.F) {
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, in []byte) {
		// A message of the fuzzer's making would name descriptors of this process: only ones that fit the form of
		// another kind are tried.
		if msgs, err := unix.ParseSocketControlMessage(in); err == nil {
			for _, m := range msgs {
				if m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_RIGHTS {
					return
				}
			}
		}
		if files, _ := descriptors(in); len(files) > 0 {
			t.Errorf("%d files of nothing", len(files))
		}
	})
}
