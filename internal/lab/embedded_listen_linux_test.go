package lab

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// loopbackOnly looks at what the kernel says: no process of the lab may listen on anything but loopback.
func (b *bench) loopbackOnly() {
	b.t.Helper()
	listening := map[string]string{} // local address by inode of the socket
	for _, table := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		raw, err := os.ReadFile(table)
		if err != nil {
			continue // a kernel without IPv6
		}
		for line := range strings.Lines(string(raw)) {
			const listen = "0A" // TCP_LISTEN; see proc(5)
			if fields := strings.Fields(line); len(fields) > 9 && fields[3] == listen {
				listening[fields[9]] = fields[1]
			}
		}
	}
	records, err := filepath.Glob(filepath.Join(b.plane().Dir(), "run", "*.json"))
	if err != nil || len(records) != 7 {
		b.t.Fatalf("records %v, %v", records, err)
	}
	sockets := 0
	for _, path := range records {
		var record struct{ PID int }
		if err := json.Unmarshal([]byte(read(b.t, path)), &record); err != nil {
			b.t.Fatal(err)
		}
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", record.PID))
		if err != nil {
			b.t.Fatal(err)
		}
		for _, file := range files {
			target, err := os.Readlink(file)
			if err != nil {
				continue // closed meanwhile
			}
			address := listening[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")]
			if address == "" {
				continue
			}
			sockets++
			// 127.0.0.1 and ::1, as the kernel writes them on a little-endian machine.
			if !strings.HasPrefix(address, "0100007F:") &&
				!strings.HasPrefix(address, "00000000000000000000000001000000:") {
				b.t.Errorf("%s listens on %s", filepath.Base(path), address)
			}
		}
	}
	if sockets < 9 {
		b.t.Errorf("only %d sockets were found", sockets)
	}
}
