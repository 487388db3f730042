package kubelet

import (
	"context"
	"encoding/json"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"
)

// As a kubelet's.
const (
	leaseSeconds  = 40
	leaseInterval = 10 * time.Second
	maxPods       = 110
	// kubeletHost is the address at which the API server finds the kubelet API. The API server is told to go by the
	// address of this type; a node's InternalIP leads nowhere.
	kubeletHost     = "127.0.0.1"
	kubeletHostType = corev1.NodeInternalDNS
	version         = "v1.36.3-podrunner"
)

// nodes keeps the nodes Ready and their leases fresh.
type nodes struct {
	k       *Kubelet
	changed chan struct{}
}

func newNodes(k *Kubelet) *nodes { return &nodes{k: k, changed: make(chan struct{}, 1)} }

// look has the nodes looked at soon.
func (n *nodes) look() {
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// run works until ctx ends.
func (n *nodes) run(ctx context.Context) {
	tick := time.NewTicker(leaseInterval)
	defer tick.Stop()
	for {
		for _, node := range n.k.Config.Nodes {
			if err := n.refresh(ctx, node.Name, node.Address); err != nil && ctx.Err() == nil {
				n.k.Log.Warn("keeping a node ready failed, will try again", "node", node.Name, "error", err)
			}
		}
		select {
		case <-n.changed:
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// refresh renews a node's lease and writes its status where it is another. A node that does not exist yet is passed
// over.
func (n *nodes) refresh(ctx context.Context, name, address string) error {
	node, err := n.k.nodes.Get(name)
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := n.lease(ctx, node); err != nil {
		return err
	}
	if ready(node) && node.Status.DaemonEndpoints.KubeletEndpoint.Port == int32(n.k.Config.Kubelet.Port) {
		return nil
	}
	patch, err := json.Marshal(map[string]any{"status": n.status(name, address)})
	if err != nil {
		return err
	}
	_, err = n.k.Client.CoreV1().Nodes().Patch(
		ctx,
		name,
		types.StrategicMergePatchType,
		patch,
		metav1.PatchOptions{},
		"status",
	)
	return err
}

func ready(node *corev1.Node) bool {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// lease creates or renews a node's lease, by which the controller manager knows that its kubelet lives.
func (n *nodes) lease(ctx context.Context, node *corev1.Node) error {
	leases := n.k.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	now := metav1.NowMicro()
	have, err := leases.Get(ctx, node.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: node.Name, OwnerReferences: []metav1.OwnerReference{
				{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID},
			}},
			Spec: coordinationv1.LeaseSpec{
				HolderIdentity:       ptr.To(node.Name),
				LeaseDurationSeconds: ptr.To(int32(leaseSeconds)),
				RenewTime:            &now,
			},
		}, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	if have.Spec.RenewTime != nil && now.Sub(have.Spec.RenewTime.Time) < leaseInterval/2 {
		return nil
	}
	have.Spec.RenewTime, have.Spec.HolderIdentity = &now, ptr.To(node.Name)
	_, err = leases.Update(ctx, have, metav1.UpdateOptions{})
	return err
}

// status describes a node. It has what this machine has; so have the other nodes.
func (n *nodes) status(name, address string) corev1.NodeStatus {
	now := metav1.Now()
	has := corev1.ResourceList{
		corev1.ResourceCPU:    *resource.NewQuantity(int64(runtime.NumCPU()), resource.DecimalSI),
		corev1.ResourceMemory: *resource.NewQuantity(memory(), resource.BinarySI),
		corev1.ResourcePods:   *resource.NewQuantity(maxPods, resource.DecimalSI),
	}
	condition := func(
		kind corev1.NodeConditionType, status corev1.ConditionStatus, reason, message string,
	) corev1.NodeCondition {
		return corev1.NodeCondition{
			Type:               kind,
			Status:             status,
			Reason:             reason,
			Message:            message,
			LastHeartbeatTime:  now,
			LastTransitionTime: now,
		}
	}
	return corev1.NodeStatus{
		Capacity: has, Allocatable: has,
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeInternalIP, Address: address},
			{Type: corev1.NodeHostName, Address: name},
			{Type: kubeletHostType, Address: kubeletHost},
		},
		Conditions: []corev1.NodeCondition{
			condition(corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory", "not measured"),
			condition(corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure", "not measured"),
			condition(corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID", "not measured"),
			condition(corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "the pod runner is ready"),
		},
		DaemonEndpoints: corev1.NodeDaemonEndpoints{
			KubeletEndpoint: corev1.DaemonEndpoint{Port: int32(n.k.Config.Kubelet.Port)},
		},
		NodeInfo: corev1.NodeSystemInfo{
			KubeletVersion: version, ContainerRuntimeVersion: "podrunner://1", OSImage: "this machine",
			OperatingSystem: "linux", Architecture: runtime.GOARCH, KernelVersion: kernel(),
			MachineID: name, SystemUUID: name, BootID: name,
		},
	}
}

// memory is this machine's memory in bytes; 8 GiB where it cannot be told.
func memory() int64 {
	raw, err := os.ReadFile("/proc/meminfo")
	if err == nil {
		for line := range strings.Lines(string(raw)) {
			if fields := strings.Fields(line); len(fields) == 3 && fields[0] == "MemTotal:" {
				if kib, err := strconv.ParseInt(fields[1], 10, 64); err == nil {
					return kib << 10
				}
			}
		}
	}
	return 8 << 30
}

func kernel() string {
	raw, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(raw))
}
