// Package lock keeps several processes from writing the same part of the cache at once.
package lock
