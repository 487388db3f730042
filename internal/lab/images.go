package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"ambientlab/internal/bundle"
	"ambientlab/internal/cluster"
	"ambientlab/internal/command"
	"ambientlab/internal/engine"
	"ambientlab/internal/lb"
	"ambientlab/internal/lesson"
	"ambientlab/internal/lesson/names"
	"ambientlab/internal/node"
	"ambientlab/internal/problem"
	"ambientlab/internal/session"
	"ambientlab/internal/upstream"
)

// podImages lists the images that the lab's pods need, from the rendered manifests themselves. adapt changes the
// manifests to what the cluster gets.
func podImages(
	ctx context.Context, env *session.Env, config session.Config, substitutes session.Substitutes, c *charts,
	adapt func(objects) objects,
) ([]string, error) {
	all, err := podObjects(ctx, env, config, substitutes, c, adapt)
	if err != nil {
		return nil, err
	}
	refs := upstream.Images(all)
	for _, l := range lesson.All() {
		refs = append(refs, l.Images...)
	}
	slices.Sort(refs)
	return slices.Compact(refs), nil
}

// podObjects lists what sm:install applies that has pods.
func podObjects(
	ctx context.Context, env *session.Env, config session.Config, substitutes session.Substitutes, c *charts,
	adapt func(objects) objects,
) (objects, error) {
	rendered, err := c.render(ctx, substitutes)
	if err != nil {
		return nil, err
	}
	var all objects
	for _, component := range upstream.Components() {
		all = append(all, rendered[component]...)
	}
	if config.MetalLB {
		list, err := env.Upstream().MetalLB(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	for _, addon := range config.Addons {
		list, err := env.Upstream().Addon(ctx, addon, config.Addons...)
		if err != nil {
			return nil, err
		}
		all = append(all, list...)
	}
	users, err := userObjects(env.Settings, config.Namespace)
	if err != nil {
		return nil, err
	}
	for _, object := range users {
		all = append(all, object.Unstructured)
	}
	return adapt(all), nil
}

func podImagesOf(ctx context.Context, s *session.Session, c *charts) ([]string, error) {
	return podImages(ctx, s.Env, s.Config, s.BundleSubstitutes(), c, s.Adapt)
}

// nodeImages lists the images that the cluster's nodes are made of, where the provider has such nodes.
func nodeImages(s *session.Session) ([]string, error) {
	user, ok := s.Provider().(cluster.NodeImageUser)
	if !ok {
		return nil, nil
	}
	return user.NodeImages()
}

// checkBundle refuses a bundle that lacks an image of the lab: the install would wait for that image much later.
func checkBundle(ctx context.Context, s *session.Session, c *charts) error {
	refs, err := podImagesOf(ctx, s, c)
	if err != nil {
		return err
	}
	nodes, err := nodeImages(s)
	if err != nil {
		return err
	}
	var missing []string
	for _, ref := range append(refs, nodes...) {
		if _, err := s.Bundle.Lookup(ref); err != nil {
			missing = append(missing, ref)
		}
	}
	if len(missing) > 0 {
		return problem.New(problem.ImageMissing, nil, "SM_BUNDLE=%s lacks %s", s.Settings.Bundle,
			strings.Join(missing, ", ")).
			With("If the missing image is a telemetry add-on's, leave that add-on out, " +
				"such as with SM_ADDONS=prometheus,jaeger.")
	}
	return nil
}

// nodeImageStep loads the nodes' image from the bundle into Docker.
func nodeImageStep(s *session.Session, id string) engine.Step {
	if _, ok := s.Provider().(cluster.NodeImageUser); !ok || s.Bundle == nil {
		return mirroredNodeImageStep(s, id)
	}
	return engine.Step{
		ID: id, Title: "Node image from the bundle", Timeout: s.Settings.StepTimeout(),
		Check: func(ctx context.Context) (engine.Status, error) {
			if s.Docker() == nil { // a preview
				return engine.Status{Message: "no Docker engine answers"}, nil
			}
			refs, err := nodeImages(s)
			if err != nil {
				return engine.Status{}, err
			}
			for _, ref := range refs {
				loaded, err := bundle.NodeImageLoaded(ctx, s.Docker(), s.Bundle, ref)
				if err != nil || !loaded {
					return engine.Status{Message: ref}, err
				}
			}
			return engine.Status{Done: true, Message: strings.Join(refs, ", ")}, nil
		},
		Do: func(ctx context.Context) error {
			refs, err := nodeImages(s)
			if err != nil {
				return err
			}
			for _, ref := range refs {
				if _, err := bundle.LoadNodeImage(ctx, s.Docker(), s.Bundle, ref); err != nil {
					return err
				}
				engine.Changed(ctx, engine.Change{Object: "Docker image " + ref, Action: engine.Create})
			}
			return nil
		},
		Explain: func() []string { return []string{"# mage sm:install loads the node image of SM_BUNDLE into Docker"} },
	}
}

// milestoneInstall of the images step: the nodes have the images of the pods that sm:install itself starts. The images
// of gateways, waypoints and lessons follow.
const milestoneInstall = "install"

// imagesStep loads the bundle's images into all nodes at once.
func imagesStep(s *session.Session, c *charts, id string, needs ...string) engine.Step {
	if s.Bundle == nil {
		return engine.Step{}
	}
	return engine.Step{
		ID: id, Title: "Images from the bundle into every node", Needs: needs, Timeout: s.Settings.StepTimeout(),
		Milestones: []string{milestoneInstall},
		Check: func(ctx context.Context) (engine.Status, error) {
			refs, containers, err := toLoad(ctx, s, c)
			if err != nil {
				return engine.Status{}, err
			}
			lacks, err := bundle.MissingInNodes(ctx, s.Docker(), s.Bundle, refs, containers)
			if err != nil {
				return engine.Status{}, err
			}
			missing := 0
			for _, refs := range lacks {
				missing += len(refs)
			}
			return engine.Status{
				Done: missing == 0,
				Message: fmt.Sprintf("%d images, %d of %d copies missing", len(refs), missing,
					len(refs)*len(containers)),
			}, nil
		},
		Do: func(ctx context.Context) error {
			refs, containers, err := toLoad(ctx, s, c)
			if err != nil {
				return err
			}
			all, err := podObjects(ctx, s.Env, s.Config, s.BundleSubstitutes(), c, s.Adapt)
			if err != nil {
				return err
			}
			loaded, replaced := map[string]int{}, map[string][]string{}
			load := func(refs []string) error {
				reports, err := bundle.LoadNodes(ctx, s.Docker(), s.Bundle, refs, containers)
				for _, done := range reports { // err names those that failed
					loaded[done.Node] += len(done.Loaded)
					if len(done.Replaced) > 0 {
						replaced[done.Node] = append(replaced[done.Node], done.Replaced...)
					}
				}
				return err
			}
			if err = load(upstream.PodImages(all)); err == nil {
				engine.Reached(ctx, milestoneInstall)
				err = load(refs)
			}
			for _, container := range containers {
				if loaded[container] > 0 {
					engine.Changed(ctx, engine.Change{
						Object: "node " + container, Action: engine.Update,
						Detail: fmt.Sprintf("%d images", loaded[container]),
					})
				}
			}
			return errors.Join(err, restartPodsOf(ctx, s, replaced))
		},
		Explain: func() []string { return importCommands(s) },
	}
}

// importCommands load the whole bundle into every node. The target itself sends a node only what it lacks.
func importCommands(s *session.Session) []string {
	nodes := containers(s)
	if nodes == "" {
		return nil
	}
	path, err := filepath.Abs(s.Settings.Bundle)
	if err != nil {
		path = s.Settings.Bundle
	}
	archive := "cat " + command.Quoted(path)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		archive = "tar -C " + command.Quoted(path) + " -c ."
	}
	return []string{fmt.Sprintf(`for node in %s; do %s | docker exec -i "$node" `+
		`ctr --namespace=k8s.io images import --all-platforms --local -; done`, nodes, archive)}
}

// restartPodsOf deletes the lab's pods that run an image which was replaced on their node, so that their controllers
// create them again with the new one: an image under the same reference changes nothing for a container that runs.
// replaced holds the references by the name of the node, for the nodes that have any.
func restartPodsOf(ctx context.Context, s *session.Session, replaced map[string][]string) error {
	if len(replaced) == 0 {
		return nil
	}
	client, err := s.Connect(ctx)
	if err != nil {
		return err
	}
	return restartPods(ctx, client.Kube(), labNamespaces(s.Config.Namespace), replaced)
}

// labNamespaces are those in which the lab's pods run.
func labNamespaces(apps string) []string { return []string{names.Istio, lb.Namespace, apps} }

func restartPods(
	ctx context.Context, kube kubernetes.Interface, namespaces []string, replaced map[string][]string,
) error {
	for _, namespace := range namespaces {
		pods, err := kube.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return fmt.Errorf("listing the pods of namespace %s: %w", namespace, err)
		}
		for i := range pods.Items {
			pod := &pods.Items[i]
			ref := runsOneOf(pod, replaced[pod.Spec.NodeName])
			switch {
			case ref == "" || pod.DeletionTimestamp != nil:
			case metav1.GetControllerOf(pod) == nil:
				engine.Progress(ctx, "pod %s/%s runs the replaced image %s; no controller would create it again",
					namespace, pod.Name, ref)
			default:
				if err := kube.CoreV1().Pods(namespace).Delete(ctx, pod.Name,
					metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions(string(pod.UID))}); err != nil &&
					!apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
					return fmt.Errorf("restarting pod %s/%s: %w", namespace, pod.Name, err)
				}
				engine.Changed(ctx, engine.Change{
					Object: "pod " + namespace + "/" + pod.Name, Action: engine.Delete,
					Detail: "it ran the replaced image " + ref + "; its controller creates it again",
				})
			}
		}
	}
	return nil
}

// runsOneOf gives the first of some references that a pod runs, or "".
func runsOneOf(pod *corev1.Pod, refs []string) string {
	for _, container := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		if slices.Contains(refs, container.Image) {
			return container.Image
		}
	}
	return ""
}

// toLoad lists the images to load and the node containers to load them into.
func toLoad(ctx context.Context, s *session.Session, c *charts) (refs, containers []string, err error) {
	if refs, err = podImagesOf(ctx, s, c); err != nil {
		return nil, nil, err
	}
	nodes, err := s.Provider().Nodes(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, n := range nodes {
		if n.Role != node.LoadBalancer {
			containers = append(containers, n.Name)
		}
	}
	return refs, containers, nil
}
