// Package githubaction holds the tests of the GitHub action in .github/actions/lab: they run its commands as a runner
// would.
package githubaction
