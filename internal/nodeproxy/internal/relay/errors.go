package relay

import (
	"errors"
	"net"
	"syscall"
)

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

func ignoreNotConnected(err error) error {
	if errors.Is(err, syscall.ENOTCONN) || errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}
