// Package extensions is where fortio's scripting command starts, and where it is refused.
package extensions

import (
	"errors"

	"grol.io/grol/object"
)

// Config says what scripts may do.
type Config struct {
	HasLoad           bool
	HasSave           bool
	UnrestrictedIOs   bool
	LoadSaveEmptyOnly bool
}

// Init refuses: this build of fortio holds no scripting language.
func Init(*Config) error { return errors.New("this build of fortio holds no scripting language") }

// MustCreate accepts an extension that no script can reach.
func MustCreate(object.Extension) {}
