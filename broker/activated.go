package broker

import (
	"errors"

	"github.com/gpubroker/gpubroker/broker/keep"
	"github.com/gpubroker/gpubroker/broker/vhostuser"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Activated are listening sockets that somebody else made for the broker (systemd's
// socket units) and that take the place of Socket, InputSocket and TouchSocket; nil where
// there is none.
type Activated struct{ GPU, Input, Touch *dmabuf.FD }

// Any reports whether there is one.
func (a *Activated) Any() bool { return a.GPU != nil || a.Input != nil || a.Touch != nil }

// Close closes those that nobody took.
func (a *Activated) Close() {
	for _, fd := range []*dmabuf.FD{a.GPU, a.Input, a.Touch} {
		_ = fd.Close()
	}
	*a = Activated{}
}

// checkSockets says whether the configuration names one way to the GPU and at most one
// to each input device.
func (c *Config) checkSockets() error {
	ways := 0
	for _, given := range []bool{c.Socket != "", c.FD != nil, c.Activated.GPU != nil, c.Keep != nil} {
		if given {
			ways++
		}
	}
	switch {
	case ways == 0 && c.Vtest == "":
		return errors.New("broker: want either --socket-path or --fd")
	case ways > 1:
		return errors.New("broker: want one of --socket-path, --fd and a socket of systemd, not several")
	case c.InputSocket != "" && c.Activated.Input != nil:
		return errors.New("broker: want either --input-socket or systemd's socket named input")
	case c.TouchSocket != "" && c.Activated.Touch != nil:
		return errors.New("broker: want either --touch-socket or systemd's socket named touch")
	}
	return nil
}

// listen makes the listener for QEMU, unless there is a connected socket.
func (s *Server) listen() (err error) {
	switch {
	case s.cfg.Keep != nil:
		s.ln = s.cfg.Keep.Listener(keep.GPU)
	case s.cfg.Socket != "":
		s.ln, err = vhostuser.Listen(s.cfg.Socket)
	case s.cfg.Activated.GPU != nil:
		s.ln, err = vhostuser.ListenFD(s.cfg.Activated.GPU)
		s.cfg.Activated.GPU = nil
	}
	return err
}
