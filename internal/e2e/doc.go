// Package e2e runs the lab as a user does, through its Mage targets, on a real kind cluster made of a source bundle.
// Its tests are under the build tag e2e; the long ones under e2efull. They need Linux, root, Docker and SM_BUNDLE;
// where one is missing they fail and say so.
package e2e
