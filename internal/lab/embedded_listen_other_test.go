//go:build !linux

package lab

// loopbackOnly needs the kernel's tables, which only Linux shows to everybody.
func (b *bench) loopbackOnly() {}
