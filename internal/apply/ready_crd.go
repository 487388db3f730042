package apply

import apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"

// crdState wants a CRD's names to be accepted and its kind to be served.
func crdState(crd *apiextensionsv1.CustomResourceDefinition) state {
	established := false
	for _, c := range crd.Status.Conditions {
		switch {
		case c.Type == apiextensionsv1.NamesAccepted && c.Status == apiextensionsv1.ConditionFalse:
			return failed("its names are taken: %s: %s", c.Reason, c.Message)
		case c.Type == apiextensionsv1.Established:
			established = c.Status == apiextensionsv1.ConditionTrue
		}
	}
	if !established {
		return waiting("the API server does not serve it yet")
	}
	return state{done: true}
}
