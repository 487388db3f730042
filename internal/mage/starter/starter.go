// Package starter is how a program knows that the project's own Mage has started it.
package starter

import (
	"os"
	"strconv"
)

// Variable holds the process number of that Mage, for its children. A number, since a child's own children inherit the
// variable and must not take it for theirs.
const Variable = "AMBIENTLAB_MAGE"

// Mark makes this process known as the starter of its children.
func Mark() error { return os.Setenv(Variable, strconv.Itoa(os.Getpid())) }

// IsParent tells whether the project's Mage is this process's parent. The arguments are os.Getenv and os.Getppid
// outside tests.
func IsParent(getenv func(string) string, parent func() int) bool {
	return getenv(Variable) == strconv.Itoa(parent())
}
