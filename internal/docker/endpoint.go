// Package docker finds the Docker engine the user means, the way the docker
// command does, and talks to it over its API. kind's library runs the docker
// command itself, so both must end at the same engine: DOCKER_HOST first, then
// DOCKER_CONTEXT, then the current context of the docker configuration.
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

// Env is what the choice of an engine depends on, injected so that tests need no
// real home directory.
type Env struct {
	// Getenv looks a variable up, as os.Getenv does.
	Getenv func(string) string
	// Home is the user's home directory; it may be empty where DOCKER_CONFIG or
	// DOCKER_HOST is set.
	Home string
}

// SystemEnv is the environment of this process.
func SystemEnv() Env {
	home, err := os.UserHomeDir()
	if err != nil {
		home = "" // then only the environment and the default socket remain
	}
	return Env{Getenv: os.Getenv, Home: home}
}

// Endpoint is an engine's address.
type Endpoint struct {
	// Context is the docker context it came from; "default" for DOCKER_HOST and
	// the platform's socket.
	Context string
	// Host is a URL such as unix:///var/run/docker.sock.
	Host string
	// TLS names the files for a TLS connection; nil means none is used.
	TLS *TLSFiles
}

// TLSFiles are PEM files; an empty name means that the piece is not used.
type TLSFiles struct {
	CA, Cert, Key string
	// SkipVerify accepts any server certificate, as the user's own docker
	// configuration asked for.
	SkipVerify bool
}

const defaultContext = "default"

// cliConfig is the part of docker's config.json that names the context.
type cliConfig struct {
	CurrentContext string `json:"currentContext"`
}

// contextMeta is the part of a context's meta.json that names the engine; the
// format is docker's own (cli/context/store).
type contextMeta struct {
	Name      string
	Endpoints map[string]struct {
		Host          string
		SkipTLSVerify bool
	}
}

// Resolve finds the endpoint the docker command would use. Its errors are problems.
func Resolve(env Env) (Endpoint, error) {
	dir := configDir(env)
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

func configDir(env Env) string {
	if dir := env.Getenv("DOCKER_CONFIG"); dir != "" {
		return dir
	}
	return filepath.Join(env.Home, ".docker")
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
		return Endpoint{}, problem.New(problem.DockerNotRunning, err, "docker context %q is chosen but cannot be read", name).
			With("List the contexts with `docker context ls` and choose one with `docker context use`.")
	}
	var meta contextMeta
	if err := json.Unmarshal(raw, &meta); err != nil {
		return Endpoint{}, problem.New(problem.DockerNotRunning, err, "docker context %q: %s is not valid JSON", name, path)
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

// tlsFromEnv is docker's own rule: TLS is used when DOCKER_TLS_VERIFY or
// DOCKER_TLS is set, with the files of DOCKER_CERT_PATH or of the configuration
// directory.
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

// checked refuses what cannot carry a lab. kind publishes the API server on the
// engine's own loopback, so an engine behind ssh would give a cluster that this
// host cannot reach.
func checked(ep Endpoint) (Endpoint, error) {
	if strings.HasPrefix(ep.Host, "ssh://") {
		return Endpoint{}, problem.New(problem.HostUnsupported, nil,
			"the Docker engine is reached over ssh (%s, docker context %q), and a kind cluster there is not reachable from here", ep.Host, ep.Context).
			With("Run the lab on that machine, or choose a local engine with `docker context use default`.")
	}
	if _, err := client.ParseHostURL(ep.Host); err != nil {
		return Endpoint{}, problem.New(problem.DockerNotRunning, err, "the Docker engine's address %q is not valid", ep.Host)
	}
	return ep, nil
}

// String names the engine for people.
func (e Endpoint) String() string { return fmt.Sprintf("%s (docker context %s)", e.Host, e.Context) }
