package cluster

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"os/exec"
	"time"

	"k8s.io/client-go/rest"

	"ambientlab/internal/engine"
	"ambientlab/internal/problem"
)

const (
	// loginTime bounds a login plug-in: one may open a browser and wait for the user.
	loginTime = 5 * time.Minute
	// loginPatience is how long a login plug-in may take before the user is told what is waited for.
	loginPatience = 2 * time.Second
)

// login runs the kubeconfig's login plug-in, if it has one, and so keeps its time and its failures apart from those of
// the API server. client-go keeps the credentials for the connections of this process that follow.
func login(ctx context.Context, cfg *rest.Config, contextName string) error {
	plugin := cfg.ExecProvider
	if plugin == nil {
		return nil
	}
	if _, err := exec.LookPath(plugin.Command); err != nil {
		missing := problem.New(
			problem.ToolMissing, err, "context %s logs in with the plug-in %s, which is not installed", contextName,
			plugin.Command,
		)
		if plugin.InstallHint != "" {
			missing = missing.With(plugin.InstallHint)
		}
		return missing
	}
	waiting := time.AfterFunc(loginPatience, func() {
		engine.Progress(ctx, "waiting for the login plug-in %s of context %s", plugin.Command, contextName)
	})
	defer waiting.Stop()
	bounded, cancel := context.WithTimeoutCause(ctx, loginTime, errors.New("it took longer than "+loginTime.String()))
	defer cancel()
	// The plug-in runs in a request's outermost round tripper, which pays no attention to the context.
	_, err := detached(bounded, func() (struct{}, error) { return struct{}{}, credentials(cfg) })
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return problem.New(
		problem.ClusterLogin, err, "context %s logs in with the plug-in %s, which gave no credentials", contextName,
		plugin.Command,
	)
}

// credentials makes a request that gets the plug-in's credentials and then goes nowhere.
func credentials(cfg *rest.Config) error {
	cfg = rest.CopyConfig(cfg)
	cfg.Wrap(func(http.RoundTripper) http.RoundTripper { return nowhere{} })
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		return err
	}
	response, err := client.Get(cmp.Or(cfg.Host, "https://localhost"))
	if err != nil {
		return err
	}
	return response.Body.Close()
}

type nowhere struct{}

func (nowhere) RoundTrip(request *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusNoContent, Body: http.NoBody, Request: request}, nil
}
