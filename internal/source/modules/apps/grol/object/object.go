// Package object declares the values that fortio passes to its scripting language.
package object

import (
	"errors"
	"io"
)

// Object is any value of the language.
type Object interface{ Inspect() string }

// Type names a kind of value.
type Type int

// The kinds that fortio names.
const (
	STRING Type = iota
	MAP
)

// Boolean is the language's boolean.
type Boolean bool

// TRUE is the language's true.
const TRUE = Boolean(true)

// String is the language's string.
type String struct{ Value string }

// Integer is the language's integer.
type Integer struct{ Value int64 }

// Map is the language's map; it is always empty here.
type Map struct{}

// Get never finds anything.
func (Map) Get(Object) (Object, bool) { return nil, false }

// JSON refuses, because there is no language to have made the map.
func (Map) JSON(io.Writer) error { return errors.ErrUnsupported }

// Inspect prints the map as the language would.
func (Map) Inspect() string { return "{}" }

// MakeQuad returns a map of two pairs; here an empty one.
func MakeQuad(_, _, _, _ Object) Object { return Map{} }

// Extension is a function offered to scripts.
type Extension struct {
	Name      string
	MinArgs   int
	MaxArgs   int
	Help      string
	ArgTypes  []Type
	Callback  func(env any, name string, args []Object) Object
	DontCache bool
}

// Inspect prints the value as the language would.
func (b Boolean) Inspect() string {
	if b {
		return "true"
	}
	return "false"
}

// Inspect prints the value as the language would.
func (s String) Inspect() string { return s.Value }

// Inspect prints the value as the language would.
func (Integer) Inspect() string { return "integer" }
