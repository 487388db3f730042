// Package outside connects the pods' network with the machine: pods reach processes of the lab that run outside of
// pods, by the names of Services, and programs of the machine reach the lab's LoadBalancer Services on loopback.
package outside

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"ambientlab/podrunner/internal/config"
	"ambientlab/podrunner/internal/kubelet"
)

// Network is the pods' network.
type Network interface {
	// Listen listens at a port of an address that pods reach.
	Listen(port int) (net.Listener, error)
	// Dial connects to a pod.
	Dial(ctx context.Context, address string) (net.Conn, error)
}

// dialLimit bounds one connection to a process or pod.
const dialLimit = 10 * time.Second

// Serve listens in the pods' network for each of a list of ports, and connects what arrives with the process on this
// machine, until ctx ends.
func Serve(ctx context.Context, ports []config.Outside, network Network, log *slog.Logger) error {
	dialer := &net.Dialer{Timeout: dialLimit}
	for _, port := range ports {
		listener, err := network.Listen(port.Number)
		if err != nil {
			return fmt.Errorf("listening for Service %s/%s: %w", port.Namespace, port.Service, err)
		}
		go relay(
			ctx,
			listener,
			log.With("service", port.Namespace+"/"+port.Service),
			func(ctx context.Context) (net.Conn, error) {
				return dialer.DialContext(ctx, "tcp4", port.Address)
			},
		)
	}
	return nil
}

// relay connects what a listener accepts with what dial gives.
func relay(ctx context.Context, listener net.Listener, log *slog.Logger, dial func(context.Context) (net.Conn, error)) {
	stop := context.AfterFunc(ctx, func() { _ = listener.Close() })
	defer stop()
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() == nil {
				log.Warn("accepting failed", "error", err)
			}
			return
		}
		go func() {
			to, err := dial(ctx)
			if err != nil {
				log.Debug("connecting failed", "error", err)
				_ = conn.Close()
				return
			}
			kubelet.Join(ctx, conn, to)
		}()
	}
}

// managedBy marks the EndpointSlices that this package makes.
const managedBy = "podrunner.ambientlab"

// Publish makes an EndpointSlice for each Service of the list when the Service is there: that is how a Service is known
// to have an endpoint.
func Publish(
	ctx context.Context,
	client kubernetes.Interface,
	ports []config.Outside,
	address string,
	service *corev1.Service,
) error {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: service.Name + "-outside", Namespace: service.Namespace,
			Labels: map[string]string{
				discoveryv1.LabelServiceName: service.Name,
				discoveryv1.LabelManagedBy:   managedBy,
			},
			OwnerReferences: []metav1.OwnerReference{
				{APIVersion: "v1", Kind: "Service", Name: service.Name, UID: service.UID},
			},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints: []discoveryv1.Endpoint{
			{Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true)}},
		},
	}
	for _, port := range ports {
		if port.Namespace == service.Namespace && port.Service == service.Name {
			slice.Ports = append(
				slice.Ports,
				discoveryv1.EndpointPort{
					Name:     ptr.To(port.Port),
					Port:     ptr.To(int32(port.Number)),
					Protocol: ptr.To(corev1.ProtocolTCP),
				},
			)
		}
	}
	if len(slice.Ports) == 0 {
		return nil
	}
	api := client.DiscoveryV1().EndpointSlices(service.Namespace)
	have, err := api.Get(ctx, slice.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		_, err = api.Create(ctx, slice, metav1.CreateOptions{})
	case err == nil:
		slice.ResourceVersion = have.ResourceVersion
		_, err = api.Update(ctx, slice, metav1.UpdateOptions{})
	}
	if err != nil {
		return fmt.Errorf("writing EndpointSlice %s/%s: %w", slice.Namespace, slice.Name, err)
	}
	return nil
}

// HostAddress is the annotation of a LoadBalancer Service that says at which address of this machine its ports are
// reached, such as 127.0.0.1:20080; with several ports the addresses are separated by commas, in the order of the
// ports.
const HostAddress = "lab.opssec.in/host-address"

// Balancer gives LoadBalancer Services addresses on loopback.
type Balancer struct {
	Client  kubernetes.Interface
	Network Network
	// First is the port for the first Service's first port; the others get any that is free.
	First int
	Log   *slog.Logger
	// Endpoints gives the ready endpoints of a Service's port.
	Endpoints func(service *corev1.Service, port corev1.ServicePort) []string

	served map[string]*served
}

type served struct {
	addresses string
	stop      context.CancelFunc
}

// Sync serves exactly the LoadBalancer Services of a list.
func (b *Balancer) Sync(ctx context.Context, services []*corev1.Service) {
	if b.served == nil {
		b.served = map[string]*served{}
	}
	wanted := map[string]bool{}
	for _, service := range services {
		if service.Spec.Type != corev1.ServiceTypeLoadBalancer || service.DeletionTimestamp != nil {
			continue
		}
		key := service.Namespace + "/" + service.Name + "/" + string(service.UID)
		wanted[key] = true
		if b.served[key] == nil {
			of, err := b.serve(ctx, service)
			if err != nil {
				b.Log.Warn("serving a Service on loopback failed", "service", key, "error", err)
				continue
			}
			b.served[key] = of
		}
		if service.Annotations[HostAddress] != b.served[key].addresses {
			patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, HostAddress, b.served[key].addresses)
			_, err := b.Client.CoreV1().Services(
				service.Namespace,
			).Patch(
				ctx,
				service.Name,
				types.MergePatchType,
				patch,
				metav1.PatchOptions{},
			)
			if err != nil && ctx.Err() == nil {
				b.Log.Warn("writing a Service's address on loopback failed", "service", key, "error", err)
			}
		}
	}
	for key, of := range b.served {
		if !wanted[key] {
			of.stop()
			delete(b.served, key)
		}
	}
}

func (b *Balancer) serve(ctx context.Context, service *corev1.Service) (*served, error) {
	life, stop := context.WithCancel(ctx)
	of := &served{stop: stop}
	// The port that a person would open in a browser comes first: the gateway's 80, and not its port for health checks.
	ports := slices.Clone(service.Spec.Ports)
	slices.SortStableFunc(ports, func(x, y corev1.ServicePort) int { return rank(x) - rank(y) })
	for _, port := range ports {
		if port.Protocol == corev1.ProtocolUDP {
			continue
		}
		listener, err := b.listen()
		if err != nil {
			stop()
			return nil, err
		}
		if of.addresses != "" {
			of.addresses += ","
		}
		of.addresses += listener.Addr().String()
		var turn atomic.Int64
		go relay(life, listener, b.Log, func(ctx context.Context) (net.Conn, error) {
			endpoints := b.Endpoints(service, port)
			if len(endpoints) == 0 {
				return nil, fmt.Errorf("no endpoint of Service %s/%s", service.Namespace, service.Name)
			}
			limit, cancel := context.WithTimeout(ctx, dialLimit)
			defer cancel()
			return b.Network.Dial(limit, endpoints[int(turn.Add(1))%len(endpoints)])
		})
	}
	return of, nil
}

// rank puts Istio's own port of a gateway, for its health, behind the gateway's listeners.
func rank(port corev1.ServicePort) int {
	if port.Name == "status-port" {
		return 1
	}
	return 0
}

// listen takes the first port as long as it is free.
func (b *Balancer) listen() (net.Listener, error) {
	if b.First != 0 {
		if listener, err := net.Listen("tcp4", net.JoinHostPort("127.0.0.1", strconv.Itoa(b.First))); err == nil {
			return listener, nil
		}
	}
	return net.Listen("tcp4", "127.0.0.1:0")
}
