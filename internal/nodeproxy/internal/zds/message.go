package zds

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
	"istio.io/istio/pkg/zdsapi"
)

// message is one request from istio-cni, with a network namespace if it adds a pod.
type message struct {
	req   *zdsapi.WorkloadRequest
	netns *os.File
}

func (m *message) close() {
	if m != nil && m.netns != nil {
		_ = m.netns.Close()
	}
}

// errBadMessage is the error of a message that was received whole but is invalid. The answer contains it.
var errBadMessage = errors.New("malformed message")

func receive(conn *net.UnixConn) (*message, error) {
	buf := make([]byte, maxMessage)
	oob := make([]byte, unix.CmsgSpace(8*4)) // more than the protocol permits, so that the others are closed
	n, oobn, flags, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, err
	}
	if n == 0 && oobn == 0 {
		return nil, io.EOF
	}
	files, err := descriptors(oob[:oobn])
	if err == nil && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = fmt.Errorf("%w: truncated", errBadMessage)
	}
	var m *message
	if err == nil {
		m, err = decode(buf[:n], files)
	}
	if err != nil {
		for _, f := range files {
			_ = f.Close()
		}
		return nil, err
	}
	return m, nil
}

// descriptors returns the file descriptors in control messages; the caller owns them.
func descriptors(oob []byte) ([]*os.File, error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("%w: control data: %w", errBadMessage, err)
	}
	var files []*os.File
	for i := range msgs {
		if msgs[i].Header.Level != unix.SOL_SOCKET || msgs[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return files, fmt.Errorf("%w: descriptors: %w", errBadMessage, err)
		}
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), "netns"))
		}
	}
	return files, nil
}

// decode parses a request. The caller owns the files if it fails.
func decode(b []byte, files []*os.File) (*message, error) {
	m := &message{req: &zdsapi.WorkloadRequest{}}
	if err := proto.Unmarshal(b, m.req); err != nil {
		return nil, fmt.Errorf("%w: %w", errBadMessage, err)
	}
	want := 0
	switch p := m.req.GetPayload().(type) {
	case nil:
		return nil, fmt.Errorf("%w: no payload", errBadMessage)
	case *zdsapi.WorkloadRequest_Add:
		want = 1
		if p.Add.GetUid() == "" || p.Add.GetWorkloadInfo() == nil {
			return nil, fmt.Errorf("%w: pod without uid or names", errBadMessage)
		}
	}
	if len(files) != want {
		return nil, fmt.Errorf("%w: %d descriptors with a %T, want %d", errBadMessage, len(files), m.req.GetPayload(),
			want)
	}
	if want == 1 {
		m.netns = files[0]
	}
	return m, nil
}

func send(conn *net.UnixConn, m proto.Message) error {
	b, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encoding: %w", err)
	}
	_, err = conn.Write(b)
	return err
}
