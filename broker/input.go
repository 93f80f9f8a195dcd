package broker

import (
	"context"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/input"
	"github.com/gpubroker/gpubroker/broker/keep"
)

// listenInput makes the input devices' sockets, if there are to be any.
func (s *Server) listenInput() (err error) {
	a := &s.cfg.Activated
	k := s.cfg.Keep
	if s.cfg.InputSocket == "" && s.cfg.TouchSocket == "" && a.Input == nil && a.Touch == nil && !k.Has(keep.Input) && !k.Has(keep.Touch) {
		return nil
	}
	s.input, err = input.NewServer(input.Config{
		Keep: k, Socket: s.cfg.InputSocket, TouchSocket: s.cfg.TouchSocket, SocketFD: a.Input, TouchFD: a.Touch, Log: s.log.Named("input"),
	})
	a.Input, a.Touch = nil, nil
	return err
}

// displayInput is what takes the windows' input: nil without devices.
func (s *Server) displayInput() display.Input {
	if s.input == nil {
		return nil
	}
	return s.input
}

// runInput serves the input devices until ctx ends. The channel gives the error.
// The guest's screen goes on without its keyboard, so it is logged at once.
func (s *Server) runInput(ctx context.Context) <-chan error {
	done := make(chan error, 1)
	if s.input == nil {
		done <- nil
		return done
	}
	go func() {
		err := s.input.Run(ctx)
		if err != nil {
			s.log.Error("input devices", zap.Error(err))
		}
		done <- err
	}()
	return done
}

// headsResized tells the input devices how large the heads' pictures are, because
// their axes cover all of them.
func (d *Device) headsResized() {
	if d.cfg.HeadSizes == nil {
		return
	}
	sizes := make([]input.Size, d.cfg.Heads)
	for i := range sizes {
		if s := &d.scanouts[i]; s.pic != nil {
			sizes[i] = input.Size{W: s.rect.W, H: s.rect.H}
		}
	}
	d.cfg.HeadSizes(sizes)
}
