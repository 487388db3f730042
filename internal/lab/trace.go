package lab

import (
	"strings"
	"time"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/internal/trace"
)

// traced gives the sink of a run: the next one, behind a trace where SM_TRACE asks for one. closing writes the trace,
// and shows its table.
func traced(settings session.Settings, next engine.Sink) (sink engine.Sink, closing func() error, err error) {
	if settings.Trace == "" {
		return next, func() error { return nil }, nil
	}
	recording, err := trace.Start(settings.Trace, next)
	if err != nil {
		return next, func() error { return nil }, problem.New(problem.SettingFileUnreadable, err,
			"SM_TRACE=%s cannot be written", settings.Trace)
	}
	return recording, func() error {
		var table strings.Builder
		err := recording.Close(&table)
		for line := range strings.Lines(table.String()) {
			next.Handle(engine.Event{Time: time.Now(), Kind: engine.Note, Message: strings.TrimSuffix(line, "\n")})
		}
		return err
	}, nil
}
