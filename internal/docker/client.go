package docker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"syscall"
	"time"

	"github.com/docker/go-connections/tlsconfig"
	"github.com/moby/moby/client"

	"ambientlab/internal/problem"
)

// New makes a client for the engine that the environment selects. It does not connect; see Ping. The API version is
// negotiated at the first request, down to 1.40 (Docker 19.03).
func New(env Env) (*client.Client, Endpoint, error) {
	ep, err := Resolve(env)
	if err != nil {
		return nil, Endpoint{}, err
	}
	var opts []client.Opt
	if ep.TLS != nil {
		// As with the docker command, the user's configuration decides whether the server's certificate is verified.
		cfg, err := tlsconfig.Client(tlsconfig.Options{
			CAFile: ep.TLS.CA, CertFile: ep.TLS.Cert, KeyFile: ep.TLS.Key,
			InsecureSkipVerify: ep.TLS.SkipVerify, ExclusiveRootPools: true,
		})
		if err != nil {
			return nil, ep, problem.New(problem.DockerNotRunning, err, "the TLS files for %s cannot be used", ep)
		}
		opts = append(opts, client.WithHTTPClient(&http.Client{
			Transport:     &http.Transport{TLSClientConfig: cfg},
			CheckRedirect: client.CheckRedirect,
		}))
	}
	opts = append(opts, client.WithHost(ep.Host))
	if v := env.Getenv("DOCKER_API_VERSION"); v != "" {
		opts = append(opts, client.WithAPIVersion(v))
	}
	c, err := client.New(opts...)
	if err != nil {
		return nil, ep, problem.New(problem.DockerNotRunning, err, "making a client for %s", ep)
	}
	return c, ep, nil
}

// Pinger is the part of the client that Ping needs.
type Pinger interface {
	Ping(ctx context.Context, options client.PingOptions) (client.PingResult, error)
}

// pingLimit is how long Ping waits for an answer. Docker Desktop accepts connections while its machine is paused, and
// does not answer.
const pingLimit = time.Second

// Ping asks whether the engine answers. The error is a problem that says why it does not.
func Ping(ctx context.Context, p Pinger, ep Endpoint) error {
	limited, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	_, err := p.Ping(limited, client.PingOptions{NegotiateAPIVersion: true})
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return problem.New(problem.DockerNotRunning, err, "the Docker engine at %s does not answer within %s", ep,
			pingLimit)
	}
	return Explain(ctx, err, ep)
}

// Explain returns the problem behind a failed request: an engine that does not run, or one that refuses this user. It
// returns other errors as they are, and the cause of a context that has ended.
func Explain(ctx context.Context, err error, ep Endpoint) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("asking the Docker engine: %w", context.Cause(ctx))
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EACCES):
		return problem.New(problem.DockerPermission, err, "the Docker engine at %s refuses this user", ep)
	case client.IsErrConnectionFailed(err), errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return problem.New(problem.DockerNotRunning, err, "no Docker engine answers at %s", ep)
	default:
		return err
	}
}
