package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/term"

	"ambientlab/internal/probe"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
)

// TrafficOptions are sm:traffic's.
type TrafficOptions struct {
	From, Path string
	RPS        float64
	Count      int
}

// Traffic is the target that shows requests to appb as they happen, until it is interrupted or their number is reached.
func Traffic(options TrafficOptions) Target {
	return func(ctx context.Context, env *session.Env) error {
		if err := options.validate(); err != nil {
			return err
		}
		s, err := session.Open(ctx, env, session.MustBeInstalled)
		if err != nil {
			return err
		}
		if err := needPackets(s, "sm:traffic"); err != nil {
			return err
		}
		measured, err := proofs(ctx, s)
		if err != nil {
			return err
		}
		file, isFile := s.Out.(*os.File)
		_, err = probe.Traffic(ctx, measured, probe.Live{
			From: probe.Caller(options.From), Method: "GET", Path: options.Path, RPS: options.RPS, Count: options.Count,
			Out: s.Out, Terminal: isFile && term.IsTerminal(int(file.Fd())),
		})
		if err = errors.Join(err, measured.World.Close(context.WithoutCancel(ctx))); err == nil {
			s.Next("mage sm:verify to have it measured and judged")
		}
		return err
	}
}

func (o TrafficOptions) validate() error {
	var faults []string
	if o.From != string(probe.Appa) && o.From != string(probe.Gateway) {
		faults = append(faults, fmt.Sprintf("-from=%q is not accepted; accepted: appa or gateway", o.From))
	}
	if !strings.HasPrefix(o.Path, "/") || strings.ContainsAny(o.Path, " \n\t\"\\#") {
		faults = append(faults,
			fmt.Sprintf("-path=%q is not accepted; accepted: a path that starts with / and holds no space or quote",
				o.Path))
	}
	if !(o.RPS > 0 && o.RPS <= 50) {
		faults = append(faults, fmt.Sprintf("-rps=%v is not accepted; accepted: a number above 0 and up to 50", o.RPS))
	}
	if o.Count < 0 || o.Count > probe.LiveLimit {
		faults = append(faults,
			fmt.Sprintf("-count=%d is not accepted; accepted: 0 (until Ctrl-C) to %d", o.Count, probe.LiveLimit))
	}
	if len(faults) > 0 {
		return problem.New(problem.SettingInvalid, nil, "%s", strings.Join(faults, "\n"))
	}
	return nil
}
