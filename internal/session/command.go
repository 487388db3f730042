package session

import "strings"

// plainCommand is how messages and advice name a target before TypedWith.
const plainCommand = "mage sm:"

// CommandOf gives the command with which a user types targets: Mage where it started this program, and otherwise the
// program itself, which `mage -compile` wrote. program is how the program was called.
func CommandOf(program string, byMage, byProjectsMage bool) string {
	switch {
	case byProjectsMage: // an installed mage may not exist
		return "go tool mage"
	case byMage:
		return "mage"
	default:
		return program
	}
}

// TypedWith changes every target that a text names so that it can be typed with a command; an empty command changes
// nothing.
func TypedWith(command, text string) string {
	if command == "" {
		return text
	}
	return strings.ReplaceAll(text, plainCommand, command+" sm:")
}
