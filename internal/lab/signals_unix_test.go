//go:build unix

package lab

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
)

// asMage names the variable by which a test's own program runs as a program of Mage.
const asMage = "AMBIENTLAB_TEST_AS_MAGE"

// TestInterruptIsTaken starts this program as Mage's generated main would run a target, and interrupts it: the target
// gets the signal, and Mage, which would end the process, does not.
func TestInterruptIsTaken(t *testing.T) {
	if os.Getenv(asMage) != "" {
		runAsMage(t)
	}
	program := exec.Command(os.Args[0], "-test.run=^TestInterruptIsTaken$")
	program.Env = append(os.Environ(), asMage+"=1")
	out, err := program.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := program.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), "ready") {
			if err := program.Process.Signal(os.Interrupt); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = program.Wait() // the exit code says it
	if code := program.ProcessState.ExitCode(); code != 42 {
		t.Errorf("exit code %d, want that of the target", code)
	}
}

// runAsMage does what Mage's generated main does (magefile/mage, mage/template.go): it runs a target, and a
// handler of SIGINT that ends the process.
func runAsMage(t *testing.T) {
	notified := make(chan struct{})
	go func() {
		<-notified // a target does other things first
		ctx, stop := takeSignals(t.Context())
		defer stop()
		fmt.Println("ready")
		<-ctx.Done()
		os.Exit(42)
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT)
	close(notified)
	<-signals
	os.Exit(1)
}
