package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// routeProtocol marks the daemon's own routes, so that it deletes no others. Numbers above 4 are for user space
// (rtnetlink(7), rtm_protocol); /etc/iproute2/rt_protos names those in use.
const routeProtocol netlink.RouteProtocol = 0xc1

// syncRoutes adds the wanted routes and deletes those of removed nodes.
func (n *network) syncRoutes(wanted []route) error {
	have, err := ownRoutes()
	if err != nil {
		return fmt.Errorf("listing routes: %w", err)
	}
	var errs []error
	for _, r := range wanted {
		if have[r] {
			delete(have, r)
			continue
		}
		if err := netlink.RouteReplace(r.netlink()); err != nil {
			errs = append(errs, fmt.Errorf("routing %s via %s: %w", r.dst, r.via, err))
			continue
		}
		// A route to the same CIDR through another address was replaced.
		for old := range have {
			if old.dst == r.dst {
				delete(have, old)
			}
		}
		n.log.Info("added a route", "podCIDR", r.dst, "via", r.via)
	}
	for stale := range have {
		if err := netlink.RouteDel(stale.netlink()); err != nil && !errors.Is(err, unix.ESRCH) {
			errs = append(errs, fmt.Errorf("deleting the route of %s via %s: %w", stale.dst, stale.via, err))
			continue
		}
		n.log.Info("deleted a route", "podCIDR", stale.dst, "via", stale.via)
	}
	return errors.Join(errs...)
}

// ownRoutes are the routes that an earlier reconcile, or an earlier daemon, added.
func ownRoutes() (map[route]bool, error) {
	out := map[route]bool{}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		list, err := netlink.RouteListFiltered(family, &netlink.Route{Protocol: routeProtocol},
			netlink.RT_FILTER_PROTOCOL)
		if err != nil {
			return nil, err
		}
		for _, r := range list {
			if r.Dst == nil {
				continue
			}
			ones, _ := r.Dst.Mask.Size()
			dst, ok := netip.AddrFromSlice(r.Dst.IP)
			via, viaOK := netip.AddrFromSlice(r.Gw)
			if ok && viaOK {
				out[route{dst: netip.PrefixFrom(dst.Unmap(), ones), via: via.Unmap()}] = true
			}
		}
	}
	return out, nil
}

func (r route) netlink() *netlink.Route {
	return &netlink.Route{
		Dst:      &net.IPNet{IP: r.dst.Addr().AsSlice(), Mask: net.CIDRMask(r.dst.Bits(), r.dst.Addr().BitLen())},
		Gw:       r.via.AsSlice(),
		Protocol: routeProtocol,
	}
}

// mtuOf is the MTU of the link that has one of the addresses. Pods must not send larger packets.
func mtuOf(addrs []netip.Addr) (int, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return 0, fmt.Errorf("listing links: %w", err)
	}
	for _, link := range links {
		have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return 0, fmt.Errorf("listing the addresses of %s: %w", link.Attrs().Name, err)
		}
		for _, h := range have {
			ip, ok := netip.AddrFromSlice(h.IP)
			for _, a := range addrs {
				if ok && ip.Unmap() == a {
					return link.Attrs().MTU, nil
				}
			}
		}
	}
	return 0, fmt.Errorf("no link holds the node's address (of %v)", addrs)
}
