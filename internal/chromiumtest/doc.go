// Package chromiumtest opens pages in Chromium for tests, which are under the build tag e2e.
package chromiumtest
