//go:build !e2efull

package lab

// rounds is how often TestEmbeddedAgain starts a lab; twenty take too long for make test.
const rounds = 3
