//go:build !linux

// Package isolate is for Linux; elsewhere there are no namespaces.
package isolate
