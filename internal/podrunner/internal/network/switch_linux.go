package network

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"

	"ambientlab/podrunner/internal/netns"
)

// Switch is the network that all pods of the lab share: a bridge in a network namespace of its own. It does not forward
// packets, and has no way out of the lab.
type Switch struct {
	ns       *netns.Namespace
	pods     netip.Prefix
	services netip.Prefix
	address  netip.Addr
}

const (
	bridgeName = "pods"
	podDevice  = "eth0"
)

// probeSource is the address from which istio-cni lets a kubelet's probes pass the node proxy (istio.io/istio,
// cni/pkg/config: HostProbeSNATIP).
var probeSource = net.IPv4(169, 254, 7, 127)

// NewSwitch makes the bridge for pods with addresses of the range pods that reach Services of the range services.
func NewSwitch(pods, services netip.Prefix) (*Switch, error) {
	ns, err := netns.New("pod-network")
	if err != nil {
		return nil, err
	}
	s := &Switch{ns: ns, pods: pods.Masked(), services: services.Masked(), address: Last(pods)}
	if err := ns.Do(s.setUp); err != nil {
		ns.Close()
		return nil, err
	}
	return s, nil
}

func (s *Switch) setUp() error {
	if err := up("lo"); err != nil {
		return err
	}
	attributes := netlink.NewLinkAttrs()
	attributes.Name = bridgeName
	// Without an address of its own a bridge takes the lowest of its ports' addresses, which changes as pods come and
	// go, and what the pods know of it by ARP is then wrong until it expires.
	attributes.HardwareAddr = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x01}
	bridge := &netlink.Bridge{LinkAttrs: attributes}
	if err := netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("adding a bridge: %w", err)
	}
	for _, address := range []*net.IPNet{
		ipNet(netip.PrefixFrom(s.address, s.pods.Bits())),
		{IP: probeSource, Mask: net.CIDRMask(32, 32)},
	} {
		if err := netlink.AddrAdd(bridge, &netlink.Addr{IPNet: address}); err != nil {
			return fmt.Errorf("giving the bridge the address %s: %w", address, err)
		}
	}
	return up(bridgeName)
}

// Address is the bridge's, at which pods reach what the lab runs outside of pods.
func (s *Switch) Address() netip.Addr { return s.address }

// Close gives the network back. Links end with the pods' namespaces.
func (s *Switch) Close() { s.ns.Close() }

// Listen listens at a port of the bridge's address.
func (s *Switch) Listen(port int) (net.Listener, error) {
	return s.ns.Listen(fmt.Sprintf("%s:%d", s.address, port))
}

// Dial connects to a pod, as a client outside of the mesh.
func (s *Switch) Dial(ctx context.Context, address string) (net.Conn, error) {
	return s.ns.Dial(ctx, nil, address)
}

// DialProbe connects to a pod as a kubelet does, past the node proxy.
func (s *Switch) DialProbe(ctx context.Context, address string) (net.Conn, error) {
	return s.ns.Dial(ctx, probeSource, address)
}

// Connect gives a pod's namespace its device, its address and its routes: to the pods and the Services, to nothing
// else. A route out, although it led nowhere, would have programs that look for a cloud provider's metadata wait for
// it.
func (s *Switch) Connect(pod *netns.Namespace, uid string, address netip.Addr) error {
	name := deviceName(uid)
	attributes := netlink.NewLinkAttrs()
	attributes.Name = name
	veth := &netlink.Veth{LinkAttrs: attributes, PeerName: podDevice, PeerNamespace: netlink.NsFd(pod.File().Fd())}
	err := s.ns.Do(func() error {
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("adding a pair of devices: %w", err)
		}
		bridge, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return fmt.Errorf("finding the bridge: %w", err)
		}
		link, err := netlink.LinkByName(name)
		if err != nil {
			return fmt.Errorf("finding %s: %w", name, err)
		}
		if err := netlink.LinkSetMaster(link, bridge); err != nil {
			return fmt.Errorf("adding %s to the bridge: %w", name, err)
		}
		return up(name)
	})
	if err != nil {
		return err
	}
	return pod.Do(func() error {
		for _, device := range []string{"lo", podDevice} {
			if err := up(device); err != nil {
				return err
			}
		}
		link, err := netlink.LinkByName(podDevice)
		if err != nil {
			return fmt.Errorf("finding %s: %w", podDevice, err)
		}
		if err := netlink.AddrAdd(link,
			&netlink.Addr{IPNet: ipNet(netip.PrefixFrom(address, s.pods.Bits()))}); err != nil {
			return fmt.Errorf("giving the pod the address %s: %w", address, err)
		}
		for _, to := range []*net.IPNet{ipNet(s.services), {IP: probeSource, Mask: net.CIDRMask(32, 32)}} {
			route := &netlink.Route{LinkIndex: link.Attrs().Index, Dst: to, Scope: netlink.SCOPE_LINK}
			if err := netlink.RouteAdd(route); err != nil {
				return fmt.Errorf("adding the route to %s: %w", to, err)
			}
		}
		return nil
	})
}

// Disconnect removes a pod's devices; that they are gone already is no error.
func (s *Switch) Disconnect(uid string) error {
	return s.ns.Do(func() error {
		link, err := netlink.LinkByName(deviceName(uid))
		if errors.As(err, &netlink.LinkNotFoundError{}) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("finding %s: %w", deviceName(uid), err)
		}
		return netlink.LinkDel(link)
	})
}

// deviceName is the pod's end in the bridge's namespace: of a pod's UID, which no other pod ever has, as much as a
// device's name may hold (15 bytes).
func deviceName(uid string) string {
	short := make([]byte, 0, 11)
	for i := 0; i < len(uid) && len(short) < cap(short); i++ {
		if uid[i] != '-' {
			short = append(short, uid[i])
		}
	}
	return "pod" + string(short)
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("finding %s: %w", name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("setting %s up: %w", name, err)
	}
	return nil
}

func ipNet(prefix netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: prefix.Addr().AsSlice(), Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen())}
}
