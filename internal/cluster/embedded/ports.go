package embedded

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
)

// What listens on 127.0.0.1.
const (
	portEtcd       = "etcd"
	portEtcdPeer   = "etcd-peer"
	portAPI        = "kube-apiserver"
	portIstiodHTTP = "istiod-http"
	portIstiodXDS  = "istiod-xds"
	portIstiodHook = "istiod-webhooks"
	portIstiodStat = "istiod-monitoring"
	portMetalStat  = "metallb-metrics"
	portMetalProbe = "metallb-health"
	portKubelet    = "kubelet"
	portGateway    = "gateway"
)

func portNames() []string {
	return []string{
		portEtcd, portEtcdPeer, portAPI, portIstiodHTTP, portIstiodXDS, portIstiodHook, portIstiodStat, portMetalStat,
		portMetalProbe,
		portKubelet, portGateway,
	}
}

// Ports are looked for below the range from which systems take the local ports of outgoing connections: one that is
// free today is then free after the next start, too.
const (
	firstPort = 20000
	lastPort  = 31999
)

// freePorts finds a free port on 127.0.0.1 for each name. The claims keep other labs from choosing the same ports
// before anything listens on them: they are to be kept until then.
func freePorts(names []string) (found map[string]int, claims []io.Closer, err error) {
	found = make(map[string]int, len(names))
	for _, name := range names {
		for range 1000 {
			port := firstPort + rand.IntN(lastPort-firstPort+1)
			if slices.Contains(slices.Collect(maps.Values(found)), port) {
				continue
			}
			claimed, err := claim(port)
			if err != nil {
				continue
			}
			if taken(port) {
				_ = claimed.Close()
				continue
			}
			claims = append(claims, claimed)
			found[name] = port
			break
		}
		if found[name] == 0 {
			release(claims)
			return nil, nil, errors.New("no free port on 127.0.0.1 between 20000 and 31999")
		}
	}
	return found, claims, nil
}

func release(claims []io.Closer) {
	for _, claimed := range claims {
		_ = claimed.Close()
	}
}

// claim makes a port this process's among all labs of the machine, until it is closed or this process ends. It is a
// socket with an abstract name, which leaves no file behind (unix(7)). Other systems have no such names: there, only a
// program that listens on a port is known to have it.
func claim(port int) (io.Closer, error) {
	if runtime.GOOS != "linux" {
		return io.NopCloser(nil), nil
	}
	return net.Listen("unix", fmt.Sprintf("@ambientlab-port-%d", port))
}

// taken tells whether something listens on a port of 127.0.0.1.
func taken(port int) bool {
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return true
	}
	_ = listener.Close()
	return false
}
