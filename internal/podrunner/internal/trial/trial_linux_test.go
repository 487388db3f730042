package trial

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"ambientlab/podrunner/internal/isolate"
)

func init() { runtime.LockOSThread() } // see isolate.Run

// obstacle is why namespaces cannot be made here.
var obstacle error

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "nothing" { // in a container, see start
		os.Exit(0)
	}
	if !isolate.Inside() {
		code, err := isolate.Run()
		if err == nil {
			os.Exit(code)
		}
		obstacle = err
	} else if err := isolate.Settle(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestRun tries everything for real.
func TestRun(t *testing.T) {
	if obstacle != nil {
		t.Skipf("this machine lets no namespaces be made, so no pod can be run: %v", obstacle)
	}
	for range 3 { // nothing of one run may be in the way of the next
		if result := Run(); result != (Result{}) {
			t.Fatalf("%+v", result)
		}
	}
}
