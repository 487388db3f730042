package ui

import "strings"

// style is what a terminal can show.
type style struct {
	colour bool
	glyphs glyphs
}

type glyphs struct {
	branch, last, rail, blank              string
	waiting, held, done, failed, cancelled string
	spin                                   []string
	ellipsis                               string
}

// styleFor returns the style for the environment: no colours if NO_COLOR is set (https://no-color.org), and ASCII
// glyphs if the locale is not UTF-8.
func styleFor(env func(string) string) style {
	return style{colour: env("NO_COLOR") == "", glyphs: glyphsFor(env)}
}

func glyphsFor(env func(string) string) glyphs {
	locale := env("LC_ALL")
	for _, name := range []string{"LC_CTYPE", "LANG"} {
		if locale == "" {
			locale = env(name)
		}
	}
	locale = strings.ToLower(locale)
	if strings.Contains(locale, "utf-8") || strings.Contains(locale, "utf8") {
		return glyphs{
			branch: "├─ ", last: "└─ ", rail: "│  ", blank: "   ",
			waiting: "·", held: "=", done: "✓", failed: "✗", cancelled: "-",
			spin:     []string{"⠋", "⠙", "⠹", "⠸", "⠼", "⠴", "⠦", "⠧", "⠇", "⠏"},
			ellipsis: "…",
		}
	}
	return glyphs{
		branch: "|- ", last: "`- ", rail: "|  ", blank: "   ",
		waiting: ".", held: "=", done: "+", failed: "x", cancelled: "-",
		spin:     []string{"|", "/", "-", "\\"},
		ellipsis: "...",
	}
}

// The SGR codes in use. The eight basic colours follow the theme of the terminal.
const (
	sgrBold   = "1"
	sgrDim    = "2"
	sgrRed    = "31"
	sgrGreen  = "32"
	sgrYellow = "33"
	sgrCyan   = "36"
)

func (s style) paint(code, text string) string {
	if !s.colour || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
