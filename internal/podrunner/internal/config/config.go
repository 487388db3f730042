// Package config is the file by which the lab tells the pod runner what to do.
package config

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"strings"
)

// Config is the file's content.
type Config struct {
	// Dir is the runner's own folder: roots of containers, volumes and logs. The runner creates and removes it.
	Dir string `json:"dir"`
	// Kubeconfig connects to the API server, with the rights of an administrator.
	Kubeconfig string `json:"kubeconfig"`
	// Simulate says that no pod is run: every pod is only reported as running.
	Simulate bool `json:"simulate,omitempty"`
	// Nodes are the nodes that the runner is the kubelet of. The lab creates their Node objects.
	Nodes []Node `json:"nodes"`
	// PodRange and ServiceRange are the cluster's ranges of addresses.
	PodRange     netip.Prefix `json:"podRange"`
	ServiceRange netip.Prefix `json:"serviceRange"`
	Kubelet      Kubelet      `json:"kubelet"`
	// Outside are Services of which a process on this machine, on loopback, is the endpoint.
	Outside []Outside `json:"outside,omitempty"`
	// HostPort is the port on 127.0.0.1 at which the first LoadBalancer Service is reached from this machine.
	HostPort int `json:"hostPort,omitempty"`
	// Images says what is run for an image. A pod with another image is simulated.
	Images []Image `json:"images,omitempty"`
}

// Node is one node.
type Node struct {
	Name string `json:"name"`
	// Address is the node's InternalIP. Nothing answers there.
	Address string `json:"address"`
}

// Kubelet is the kubelet API, which serves exec, logs and port-forward on 127.0.0.1.
type Kubelet struct {
	Port int `json:"port"`
	// Certificate and Key are the server's, ClientCA signs the client's.
	Certificate string `json:"certificate"`
	Key         string `json:"key"`
	ClientCA    string `json:"clientCA"`
	// Client is the common name of the only client that is served, the API server.
	Client string `json:"client"`
}

// Outside is one port of a Service whose endpoint is a process on this machine.
type Outside struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	// Port is the name of the Service's port; Number is where the runner listens for it in the pods' network.
	Port   string `json:"port"`
	Number int    `json:"number"`
	// Address is the process's, such as 127.0.0.1:20001.
	Address string `json:"address"`
}

// Image is what runs for an image.
type Image struct {
	// Reference is the image's reference up to its tag, such as docker.io/fortio/fortio.
	Reference string `json:"reference"`
	// Files are put at their paths in the root of a container.
	Files []File `json:"files"`
	// Directories are empty folders in the root of a container.
	Directories []string `json:"directories,omitempty"`
	// Libraries says that the programs need this machine's C library.
	Libraries bool `json:"libraries,omitempty"`
	// Entrypoint, Command, Environment and WorkingDirectory are the image's own.
	Entrypoint       []string `json:"entrypoint,omitempty"`
	Command          []string `json:"command,omitempty"`
	Environment      []string `json:"environment,omitempty"`
	WorkingDirectory string   `json:"workingDirectory,omitempty"`
}

// File is a file of this machine and its path in a container.
type File struct {
	Path   string `json:"path"`
	Source string `json:"source"`
}

// Load reads and checks the file.
func Load(path string) (*Config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("reading the configuration: %w", err)
	}
	c := &Config{}
	if err := json.Unmarshal(raw, c); err != nil {
		return nil, fmt.Errorf("reading the configuration %s: %w", path, err)
	}
	var faults []string
	for name, value := range map[string]string{"dir": c.Dir, "kubeconfig": c.Kubeconfig} {
		if value == "" {
			faults = append(faults, name+" is missing")
		}
	}
	if len(c.Nodes) == 0 {
		faults = append(faults, "nodes is empty")
	}
	if !c.PodRange.IsValid() || !c.PodRange.Addr().Is4() {
		faults = append(faults, "podRange is no IPv4 range")
	}
	if !c.ServiceRange.IsValid() || !c.ServiceRange.Addr().Is4() {
		faults = append(faults, "serviceRange is no IPv4 range")
	}
	if len(faults) > 0 {
		return nil, fmt.Errorf("the configuration %s: %s", path, strings.Join(faults, "; "))
	}
	return c, nil
}

// Find gives what runs for an image's reference; false where there is nothing.
func (c *Config) Find(reference string) (Image, bool) {
	if c.Simulate {
		return Image{}, false
	}
	name := repository(reference)
	for _, image := range c.Images {
		if repository(image.Reference) == name {
			return image, true
		}
	}
	return Image{}, false
}

// repository is a reference without tag and digest, in its long form.
func repository(reference string) string {
	name, _, _ := strings.Cut(reference, "@")
	slash := strings.LastIndexByte(name, '/')
	if colon := strings.LastIndexByte(name, ':'); colon > slash {
		name = name[:colon]
	}
	host, _, qualified := strings.Cut(name, "/")
	switch {
	case !qualified:
		return "docker.io/library/" + name
	case !strings.ContainsAny(host, ".:") && host != "localhost":
		return "docker.io/" + name
	}
	return name
}
