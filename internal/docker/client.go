package docker

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"syscall"
	"time"

	"github.com/moby/moby/client"

	"ambientlab/internal/problem"
)

// New makes a client for the engine that the environment means. It does not
// connect; see Ping. The API version is negotiated at the first request, down to
// 1.40 (Docker 19.03).
func New(env Env) (*client.Client, Endpoint, error) {
	ep, err := Resolve(env)
	if err != nil {
		return nil, Endpoint{}, err
	}
	var opts []client.Opt
	if ep.TLS != nil {
		cfg, err := tlsConfig(*ep.TLS)
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

func tlsConfig(files TLSFiles) (*tls.Config, error) {
	// The user's own docker configuration decides about verification, and the
	// docker command next to us does the same.
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: files.SkipVerify}
	if files.CA != "" {
		pem, err := os.ReadFile(files.CA)
		if err != nil {
			return nil, fmt.Errorf("reading the CA: %w", err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate", files.CA)
		}
	}
	if files.Cert != "" && files.Key != "" {
		pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		if err != nil {
			return nil, fmt.Errorf("loading the client certificate: %w", err)
		}
		cfg.Certificates = []tls.Certificate{pair}
	}
	return cfg, nil
}

// Pinger is the part of the client Ping needs.
type Pinger interface {
	Ping(ctx context.Context, options client.PingOptions) (client.PingResult, error)
}

// pingLimit is how long an engine may take to say that it is there. One that accepts connections and never answers, as
// Docker Desktop's does while its machine is paused, should not be waited for.
const pingLimit = time.Second

// Ping tells whether the engine answers; the error is a problem that says why not.
func Ping(ctx context.Context, p Pinger, ep Endpoint) error {
	limited, cancel := context.WithTimeout(ctx, pingLimit)
	defer cancel()
	_, err := p.Ping(limited, client.PingOptions{NegotiateAPIVersion: true})
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return problem.New(problem.DockerNotRunning, err, "the Docker engine at %s does not answer within %s", ep, pingLimit)
	}
	return Explain(ctx, err, ep)
}

// Explain turns the failure of a request into the problem behind it: an engine that
// does not run, or one that refuses this user. Other errors, and a cancelled
// context's, come back as they are.
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
