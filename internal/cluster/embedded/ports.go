package embedded

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
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

// freePorts finds a free port on 127.0.0.1 for each name. All are held until the last is found, so that no two are the
// same.
func freePorts(names []string) (map[string]int, error) {
	found := make(map[string]int, len(names))
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	for _, name := range names {
		for range 1000 {
			port := firstPort + rand.IntN(lastPort-firstPort+1)
			listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
			if err != nil {
				continue
			}
			held = append(held, listener)
			found[name] = port
			break
		}
		if found[name] == 0 {
			return nil, errors.New("no free port on 127.0.0.1 between 20000 and 31999")
		}
	}
	return found, nil
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
