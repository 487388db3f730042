// Package dockertest is a Docker engine in memory: what the lab asks of an engine, answered from a list of containers
// and networks, for tests.
package dockertest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"net"
	"net/netip"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/jsonstream"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/system"
	"github.com/moby/moby/client"
)

// Container is one container.
type Container struct {
	ID, Name string
	Labels   map[string]string
	// Mounts are the mount points.
	Mounts  []string
	Network string
	// Published is the address at which port 6443 is published while it runs.
	Published string
	// Ports are further ports of the container that are published, and at which addresses.
	Ports map[uint16]string
	// IP is its address while it runs; FixedIP the one it asked for.
	IP, FixedIP string
	Stopped     bool
	// Created is in seconds since 1970.
	Created int64
	// Files are paths that exist in it.
	Files []string
	// Contents are the contents of files that can be copied out of it, by their paths.
	Contents map[string]string
	// Log is what it printed.
	Log string
}

// Engine answers the lab's requests. Fill in its fields before use; its methods may be called side by side.
type Engine struct {
	// Networks are the networks' IPAM entries by name.
	Networks map[string][]network.IPAMConfig
	// Images are the references that are present; Registry those that can be pulled.
	Images, Registry []string
	// Exec answers a command in a container.
	Exec func(container string, command []string) (stdout, stderr string, code int)
	// Down, when set, is what every request fails with.
	Down error
	// Host is what Info gives.
	Host system.Info

	mu         sync.Mutex
	containers []Container
	execs      map[string]execution
	removed    []string
}

type execution struct {
	container string
	command   []string
	code      int
}

// Add puts a container in; its ID is its name where it has none.
func (e *Engine) Add(c Container) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if c.ID == "" {
		c.ID = c.Name
	}
	e.containers = append(e.containers, c)
}

// Containers gives those that are there, by name.
func (e *Engine) Containers() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	var names []string
	for _, c := range e.containers {
		names = append(names, c.Name)
	}
	slices.Sort(names)
	return names
}

// Removed gives those that were removed, by name.
func (e *Engine) Removed() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Sorted(slices.Values(e.removed))
}

func (e *Engine) find(id string) (int, error) {
	i := slices.IndexFunc(e.containers, func(c Container) bool { return c.ID == id || c.Name == id })
	if i < 0 {
		return 0, errdefs.ErrNotFound.WithMessage("No such container: " + id)
	}
	return i, nil
}

// ContainerList knows the filters label and network.
func (e *Engine) ContainerList(ctx context.Context, o client.ContainerListOptions) (client.ContainerListResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := errors.Join(e.Down, ctx.Err()); err != nil {
		return client.ContainerListResult{}, err
	}
	var result client.ContainerListResult
	for _, c := range e.containers {
		if c.Stopped && !o.All || !matches(c, o.Filters) {
			continue
		}
		result.Items = append(result.Items, summary(c))
	}
	return result, nil
}

func matches(c Container, filters client.Filters) bool {
	for want := range filters["label"] {
		key, value, exact := strings.Cut(want, "=")
		if got, ok := c.Labels[key]; !ok || exact && got != value {
			return false
		}
	}
	for want := range filters["network"] {
		if c.Network != want {
			return false
		}
	}
	return true
}

func summary(c Container) container.Summary {
	s := container.Summary{
		ID: c.ID, Names: []string{"/" + c.Name}, Labels: maps.Clone(c.Labels), Created: c.Created,
		State: container.StateRunning,
	}
	if c.Stopped {
		s.State = container.StateExited
	}
	for _, m := range c.Mounts {
		s.Mounts = append(s.Mounts, container.MountPoint{Destination: m})
	}
	if c.Published != "" && !c.Stopped {
		p := netip.MustParseAddrPort(c.Published)
		s.Ports = []container.PortSummary{{IP: p.Addr(), PublicPort: p.Port(), PrivatePort: 6443, Type: "tcp"}}
	}
	for port, address := range c.Ports {
		if p := netip.MustParseAddrPort(address); !c.Stopped {
			s.Ports = append(
				s.Ports, container.PortSummary{IP: p.Addr(), PublicPort: p.Port(), PrivatePort: port, Type: "tcp"},
			)
		}
	}
	s.HostConfig.NetworkMode = c.Network
	ep := &network.EndpointSettings{}
	if c.IP != "" && !c.Stopped {
		ep.IPAddress = netip.MustParseAddr(c.IP)
	}
	if c.FixedIP != "" {
		ep.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr(c.FixedIP)}
	}
	s.NetworkSettings = &container.NetworkSettingsSummary{Networks: map[string]*network.EndpointSettings{c.Network: ep}}
	return s
}

// NetworkInspect gives a network whose ID is its name.
func (e *Engine) NetworkInspect(_ context.Context, name string,
	_ client.NetworkInspectOptions,
) (client.NetworkInspectResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	entries, ok := e.Networks[name]
	if e.Down != nil || !ok {
		return client.NetworkInspectResult{}, errors.Join(e.Down,
			errdefs.ErrNotFound.WithMessage("network "+name+" not found"))
	}
	result := client.NetworkInspectResult{Network: network.Inspect{Containers: map[string]network.EndpointResource{}}}
	result.Network.Name, result.Network.ID, result.Network.IPAM.Config = name, name, entries
	for _, c := range e.containers {
		if c.Network == name && c.IP != "" && !c.Stopped {
			result.Network.Containers[c.ID] = network.EndpointResource{
				Name:        c.Name,
				IPv4Address: netip.PrefixFrom(netip.MustParseAddr(c.IP), 16),
			}
		}
	}
	return result, nil
}

// ContainerRemove removes a container.
func (e *Engine) ContainerRemove(_ context.Context, id string,
	_ client.ContainerRemoveOptions,
) (client.ContainerRemoveResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, err := e.find(id)
	if err != nil {
		return client.ContainerRemoveResult{}, err
	}
	e.removed = append(e.removed, e.containers[i].Name)
	e.containers = slices.Delete(e.containers, i, i+1)
	return client.ContainerRemoveResult{}, nil
}

// ContainerStart starts a stopped container.
func (e *Engine) ContainerStart(_ context.Context, id string,
	_ client.ContainerStartOptions,
) (client.ContainerStartResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, err := e.find(id)
	if err == nil {
		e.containers[i].Stopped = false
	}
	return client.ContainerStartResult{}, err
}

// ContainerLogs gives a container's log.
func (e *Engine) ContainerLogs(
	_ context.Context, id string, _ client.ContainerLogsOptions,
) (client.ContainerLogsResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, err := e.find(id)
	if err != nil {
		return nil, err
	}
	return io.NopCloser(strings.NewReader(e.containers[i].Log)), nil
}

// ContainerStatPath knows the files of a container by name.
func (e *Engine) ContainerStatPath(_ context.Context, id string,
	o client.ContainerStatPathOptions,
) (client.ContainerStatPathResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, err := e.find(id)
	if err != nil {
		return client.ContainerStatPathResult{}, err
	}
	if !slices.Contains(e.containers[i].Files, o.Path) {
		return client.ContainerStatPathResult{}, errdefs.ErrNotFound.WithMessage("no such file: " + o.Path)
	}
	return client.ContainerStatPathResult{}, nil
}

// Write makes a file exist in a container.
func (e *Engine) Write(id, file string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if i, err := e.find(id); err == nil {
		e.containers[i].Files = append(e.containers[i].Files, file)
	}
}

// CopyFromContainer gives the content of a file of Contents.
func (e *Engine) CopyFromContainer(_ context.Context, id string,
	o client.CopyFromContainerOptions,
) (client.CopyFromContainerResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, err := e.find(id)
	if err != nil {
		return client.CopyFromContainerResult{}, err
	}
	content, ok := e.containers[i].Contents[o.SourcePath]
	if !ok {
		return client.CopyFromContainerResult{}, errdefs.ErrNotFound.WithMessage("no such file: " + o.SourcePath)
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	header := &tar.Header{Name: path.Base(o.SourcePath), Mode: 0o600, Size: int64(len(content))}
	if err := w.WriteHeader(header); err != nil {
		return client.CopyFromContainerResult{}, err
	}
	if _, err := w.Write([]byte(content)); err != nil {
		return client.CopyFromContainerResult{}, err
	}
	return client.CopyFromContainerResult{Content: io.NopCloser(&archive)}, w.Close()
}

// CopyToContainer adds the archive's files.
func (e *Engine) CopyToContainer(_ context.Context, id string,
	o client.CopyToContainerOptions,
) (client.CopyToContainerResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, err := e.find(id)
	if err != nil {
		return client.CopyToContainerResult{}, err
	}
	archive := tar.NewReader(o.Content)
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return client.CopyToContainerResult{}, nil
		}
		if err != nil {
			return client.CopyToContainerResult{}, err
		}
		e.containers[i].Files = append(e.containers[i].Files, path.Join(o.DestinationPath, header.Name))
	}
}

// ImageInspect knows only whether an image is present.
func (e *Engine) ImageInspect(
	_ context.Context, ref string, _ ...client.ImageInspectOption,
) (client.ImageInspectResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.Down != nil {
		return client.ImageInspectResult{}, e.Down
	}
	if !slices.Contains(e.Images, ref) {
		return client.ImageInspectResult{}, errdefs.ErrNotFound.WithMessage("No such image: " + ref)
	}
	return client.ImageInspectResult{}, nil
}

// ImagePull takes an image from Registry.
func (e *Engine) ImagePull(_ context.Context, ref string, _ client.ImagePullOptions) (client.ImagePullResponse, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !slices.Contains(e.Registry, ref) {
		return nil, fmt.Errorf("dial tcp: lookup registry-1.docker.io: no such host")
	}
	e.Images = append(e.Images, ref)
	return pulled{}, nil
}

type pulled struct{ io.ReadCloser }

func (pulled) Close() error               { return nil }
func (pulled) Wait(context.Context) error { return nil }
func (pulled) JSONMessages(context.Context) iter.Seq2[jsonstream.Message, error] {
	return func(func(jsonstream.Message, error) bool) {}
}

// ExecCreate prepares a command.
func (e *Engine) ExecCreate(_ context.Context, id string, o client.ExecCreateOptions) (client.ExecCreateResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	i, err := e.find(id)
	if err := errors.Join(e.Down, err); err != nil {
		return client.ExecCreateResult{}, err
	}
	if e.execs == nil {
		e.execs = make(map[string]execution)
	}
	execID := fmt.Sprintf("exec-%d", len(e.execs))
	e.execs[execID] = execution{container: e.containers[i].Name, command: o.Cmd}
	return client.ExecCreateResult{ID: execID}, nil
}

// ExecAttach runs the command through Exec and streams its output as Docker does.
func (e *Engine) ExecAttach(_ context.Context, id string, _ client.ExecAttachOptions) (client.ExecAttachResult, error) {
	e.mu.Lock()
	ran := e.execs[id]
	e.mu.Unlock()
	stdout, stderr, code := "", "", 0
	if e.Exec != nil {
		stdout, stderr, code = e.Exec(ran.container, ran.command)
	}
	e.mu.Lock()
	ran.code = code
	e.execs[id] = ran
	e.mu.Unlock()
	ours, theirs := net.Pipe()
	go func() {
		defer func() { _ = ours.Close() }()
		frame(ours, stdcopy.Stdout, stdout)
		frame(ours, stdcopy.Stderr, stderr)
	}()
	return client.ExecAttachResult{HijackedResponse: client.NewHijackedResponse(theirs, "")}, nil
}

// frame writes one piece of a multiplexed stream: the stream's number, three zeros, the length, the text.
func frame(w io.Writer, stream stdcopy.StdType, text string) {
	if text == "" {
		return
	}
	header := make([]byte, 8)
	header[0] = byte(stream)
	binary.BigEndian.PutUint32(header[4:], uint32(len(text)))
	_, _ = w.Write(append(header, text...)) // a reader that is gone wants nothing
}

// ExecInspect tells how the command ended.
func (e *Engine) ExecInspect(
	_ context.Context, id string, _ client.ExecInspectOptions,
) (client.ExecInspectResult, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return client.ExecInspectResult{ID: id, ExitCode: e.execs[id].code}, nil
}

// Ping fails with Down.
func (e *Engine) Ping(context.Context, client.PingOptions) (client.PingResult, error) {
	return client.PingResult{APIVersion: "1.41"}, e.Down
}

// Info gives Host.
func (e *Engine) Info(context.Context, client.InfoOptions) (client.SystemInfoResult, error) {
	return client.SystemInfoResult{Info: e.Host}, e.Down
}
