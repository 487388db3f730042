package cluster

import (
	"context"
	"fmt"
	"strings"
	"unicode"

	"sigs.k8s.io/kind/pkg/log"

	"ambientlab/internal/engine"
)

// progressLog passes what kind says on as the progress of the current step. kind writes from several goroutines, which
// engine.Progress allows.
type progressLog struct{ ctx context.Context }

var _ log.Logger = (*progressLog)(nil)

func newProgressLog(ctx context.Context) *progressLog { return &progressLog{ctx: ctx} }

func (l *progressLog) say(text string) {
	if text = plain(text); text != "" && l.ctx.Err() == nil {
		engine.Progress(l.ctx, "kind: %s", text)
	}
}

func (l *progressLog) Warn(message string)               { l.say("warning: " + message) }
func (l *progressLog) Warnf(format string, args ...any)  { l.Warn(fmt.Sprintf(format, args...)) }
func (l *progressLog) Error(message string)              { l.say("error: " + message) }
func (l *progressLog) Errorf(format string, args ...any) { l.Error(fmt.Sprintf(format, args...)) }

// V passes only what kind tells its users by default.
func (l *progressLog) V(level log.Level) log.InfoLogger {
	return infoLog{log: l, enabled: level == 0}
}

type infoLog struct {
	log     *progressLog
	enabled bool
}

func (l infoLog) Enabled() bool { return l.enabled }

func (l infoLog) Info(message string) {
	// kind says each step twice, at its start and with a tick at its end.
	if l.enabled && !strings.Contains(message, "✓") {
		l.log.say(message)
	}
}

func (l infoLog) Infof(format string, args ...any) { l.Info(fmt.Sprintf(format, args...)) }

// plain leaves the letters: kind decorates its lines with bullets and pictures.
func plain(text string) string {
	text = strings.Map(func(r rune) rune {
		if r > unicode.MaxLatin1 {
			return -1
		}
		return r
	}, text)
	text = strings.Join(strings.Fields(text), " ")
	return strings.TrimSpace(strings.TrimSuffix(text, "..."))
}
