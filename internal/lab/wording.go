package lab

import "strings"

// wording is how whoever sits at the keyboard has to type a target for it to mean what a message says.
type wording struct {
	// tool: this target was typed as `go tool mage`, and there may be no other mage.
	tool bool
	// provider is what sm:lab has chosen by itself. Without it, the next target would be at kind, which was just passed over.
	provider string
}

// typed puts every target that a text names into the words that are to be typed.
func (w wording) typed(text string) string {
	const plain = "mage sm:"
	command := plain
	if w.tool {
		command = "go tool " + command
	}
	if w.provider != "" {
		command = "SM_PROVIDER=" + w.provider + " " + command
	}
	return strings.ReplaceAll(text, plain, command)
}
