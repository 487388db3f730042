// Package docker finds the Docker engine that the docker command would use, and talks to it over its API. kind's
// library runs the docker command, so both must use the same engine: DOCKER_HOST first, then DOCKER_CONTEXT, then the
// current context of the docker configuration.
package docker

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/client"

	"ambientlab/internal/problem"
)

// Env is what the choice of an engine depends on.
type Env struct {
	// Getenv looks a variable up, as os.Getenv does.
	Getenv func(string) string
	// Home is the user's home directory. It can be empty if DOCKER_CONFIG or DOCKER_HOST is set.
	Home string
}

// SystemEnv is the environment of this process.
func SystemEnv() Env {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "" // the environment and the default socket are used
	}
	return Env{Getenv: os.Getenv, Home: home}
}

// Endpoint is an engine's address.
type Endpoint struct {
	// Context is the docker context that the address is from, or "default" for DOCKER_HOST and the platform's socket.
	Context string
	// Host is a URL such as unix:///var/run/docker.sock.
	Host string
	// TLS names the files for a TLS connection; nil means no TLS.
	TLS *TLSFiles
}

// TLSFiles are PEM files. An empty name means that the file is not used.
type TLSFiles struct {
	CA, Cert, Key string
	// SkipVerify accepts any server certificate, which the user's docker configuration can ask for.
	SkipVerify bool
}

const defaultContext = "default"

// cliConfig is the part of docker's config.json that names the context.
type cliConfig struct {
	CurrentContext string `json:"currentContext"`
}

// contextMeta is the part of a context's meta.json that names the engine (github.com/docker/cli/cli/context/store).
type contextMeta struct {
	Name      string
	Endpoints map[string]struct {
		Host          string
		SkipTLSVerify bool
	}
}

// Resolve finds the endpoint that the docker command would use. Its errors are problems.
func Resolve(env Env) (Endpoint, error) {
	dir := env.ConfigDir()
	if host := env.Getenv("DOCKER_HOST"); host != "" {
		return checked(Endpoint{Context: defaultContext, Host: host, TLS: tlsFromEnv(env, dir)})
	}
	name := env.Getenv("DOCKER_CONTEXT")
	if name == "" {
		var err error
		if name, err = currentContext(dir); err != nil {
			return Endpoint{}, err
		}
	}
	if name == "" || name == defaultContext {
		return Endpoint{Context: defaultContext, Host: client.DefaultDockerHost, TLS: tlsFromEnv(env, dir)}, nil
	}
	return fromContext(dir, name)
}

// ConfigDir is the folder of the docker command's configuration.
func (e Env) ConfigDir() string {
	if dir := e.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	return filepath.Join(e.Home, ".docker")
}

func currentContext(dir string) (string, error) {
	path := filepath.Join(dir, "config.json")
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", problem.New(problem.DockerNotRunning, err, "reading docker's configuration %s", path)
	}
	var cfg cliConfig
	if err := json.Unmarshal(raw, &cfg); err != nil {
		return "", problem.New(problem.DockerNotRunning, err, "docker's configuration %s is not valid JSON", path)
	}
	return cfg.CurrentContext, nil
}

func fromContext(dir, name string) (Endpoint, error) {
	sum := sha256.Sum256([]byte(name))
	id := hex.EncodeToString(sum[:])
	path := filepath.Join(dir, "contexts", "meta", id, "meta.json")
	raw, err := os.ReadFile(path)
	if err != nil {
		return Endpoint{}, problem.New(problem.DockerNotRunning, err, "docker context %q is chosen but cannot be read",
			name).
			With("List the contexts with `docker context ls` and choose one with `docker context use`.")
	}
	var meta contextMeta
	if err := json.Unmarshal(raw, &meta); err != nil {
		return Endpoint{}, problem.New(problem.DockerNotRunning, err, "docker context %q: %s is not valid JSON", name,
			path)
	}
	engine, ok := meta.Endpoints["docker"]
	if !ok || engine.Host == "" {
		return Endpoint{}, problem.New(problem.DockerNotRunning, nil, "docker context %q names no Docker engine", name)
	}
	ep := Endpoint{Context: name, Host: engine.Host}
	files := tlsIn(filepath.Join(dir, "contexts", "tls", id, "docker"))
	files.SkipVerify = engine.SkipTLSVerify
	if files != (TLSFiles{}) {
		ep.TLS = &files
	}
	return checked(ep)
}

// tlsFromEnv follows the docker command: it uses TLS if DOCKER_TLS_VERIFY or DOCKER_TLS is set, with the files in
// DOCKER_CERT_PATH or in the configuration directory.
func tlsFromEnv(env Env, dir string) *TLSFiles {
	verify := env.Getenv("DOCKER_TLS_VERIFY") != ""
	if !verify && env.Getenv("DOCKER_TLS") == "" {
		return nil
	}
	if path := env.Getenv("DOCKER_CERT_PATH"); path != "" {
		dir = path
	}
	files := tlsIn(dir)
	files.SkipVerify = !verify
	return &files
}

func tlsIn(dir string) TLSFiles {
	present := func(name string) string {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			return ""
		}
		return path
	}
	return TLSFiles{CA: present("ca.pem"), Cert: present("cert.pem"), Key: present("key.pem")}
}

// checked refuses an endpoint that a lab cannot use. kind publishes the API server on the engine's loopback address, so
// this host could not reach a cluster of an engine behind ssh.
func checked(ep Endpoint) (Endpoint, error) {
	if strings.HasPrefix(ep.Host, "ssh://") {
		return Endpoint{}, problem.New(problem.HostUnsupported, nil,
			"the Docker engine is reached over ssh (%s, docker context %q), "+
				"and a kind cluster there is not reachable from here", ep.Host, ep.Context).
			With("Run the lab on that machine, or choose a local engine with `docker context use default`.")
	}
	if _, err := client.ParseHostURL(ep.Host); err != nil {
		return Endpoint{}, problem.New(problem.DockerNotRunning, err, "the Docker engine's address %q is not valid",
			ep.Host)
	}
	return ep, nil
}

// String is the address and the context.
func (e Endpoint) String() string { return fmt.Sprintf("%s (docker context %s)", e.Host, e.Context) }
