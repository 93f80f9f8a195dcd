package broker_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"

	"github.com/gpubroker/gpubroker/broker/apps"
	"github.com/gpubroker/gpubroker/broker/crossdomain"
	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/testing/fakeguest"
)

// ringStream is the guest's end of a stream in a cross-domain context.
type ringStream struct {
	r    *appsRig
	mu   *sync.Mutex // the rings are for one goroutine
	poll *fakeguest.Op
	rest []byte
	done chan struct{}
	once sync.Once
}

func (s *ringStream) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		part := p[:min(len(p), 60000)]
		s.mu.Lock()
		op, err := s.r.Ctrl.Submit(submit(onRing(crossCtx, crossdomain.RingQuery, 9), send(string(part), 0)), 64)
		s.mu.Unlock()
		if err != nil {
			return n, err
		}
		if err := s.wait(op); err != nil {
			return n, err
		}
		n, p = n+len(part), p[len(part):]
	}
	return n, nil
}

// wait looks now and then, so that others may use the rings.
func (s *ringStream) wait(op *fakeguest.Op) error {
	for {
		s.mu.Lock()
		done, err := s.r.Ctrl.Done(op)
		if done {
			_, err = s.r.Ctrl.Wait(op, make([]byte, 64), time.Second)
		}
		s.mu.Unlock()
		if done || err != nil {
			return err
		}
		select {
		case <-s.done:
			return io.ErrClosedPipe
		case <-time.After(100 * time.Microsecond):
		}
	}
}

func (s *ringStream) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		s.mu.Lock()
		if s.poll == nil {
			var err error
			if s.poll, err = s.r.Ctrl.Submit(submit(onRing(crossCtx, crossdomain.RingChannel, 1), command(crossdomain.CmdPoll, crossdomain.SizePoll)), 64); err != nil {
				s.mu.Unlock()
				return 0, err
			}
		}
		s.mu.Unlock()
		if err := s.wait(s.poll); err != nil {
			return 0, err
		}
		s.poll = nil
		ring := make([]byte, ringBytes)
		s.r.ring.ReadAt(ring, 0)
		n := binary.LittleEndian.Uint32(ring[12:])
		if n == 0 {
			return 0, io.EOF
		}
		s.rest = ring[crossdomain.SizeSendReceive:][:n]
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *ringStream) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}

type handlerFunc func(ctx context.Context, g proxy.Guest, o proxy.Owner) error

func (f handlerFunc) Serve(ctx context.Context, g proxy.Guest, o proxy.Owner) error {
	return f(ctx, g, o)
}

// TestCrossLink: the frames of gpubroker-guest travel inside a cross-domain context;
// its resources are those of that context, and why it is ended reaches the guest.
func TestCrossLink(t *testing.T) {
	owners := make(chan proxy.Owner, 1)
	service, err := apps.New(apps.Config{GPU: true, Log: zap.NewNop(), Handler: handlerFunc(func(ctx context.Context, g proxy.Guest, o proxy.Owner) error {
		owners <- o
		c, err := g.Recv(ctx)
		if err != nil {
			return err
		}
		if len(c.Items) != 1 || c.Items[0].Kind != proxy.ItemResource || c.Items[0].Resource != 7 {
			return errors.New("no resource came")
		}
		if err := g.Send(ctx, proxy.Chunk{Data: c.Data}); err != nil {
			return err
		}
		return errors.New("nothing more is wanted")
	})})
	if err != nil {
		t.Fatal(err)
	}
	r := &appsRig{}
	r.machine = newMachine(t, machineConfig{profile: vhostusertest.QEMU11B, apps: &crossdomain.Channels{
		Stream: func(ctx context.Context, rw io.ReadWriteCloser, id uint32) error {
			return service.ServeStream(ctx, rw, apps.TransportCrossDomain, proxy.Owner{Ctx: id})
		},
	}})
	t.Cleanup(service.Close)
	r.connect(crossdomain.ChannelStream)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s := &ringStream{r: r, mu: &sync.Mutex{}, done: make(chan struct{})}
	c, w, err := link.ClientHandshake(ctx, s, link.Hello{Name: "in a context"}, link.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if w.Flags&link.FlagGPUResources == 0 {
		t.Errorf("%+v", w)
	}
	if o := <-owners; o.Ctx != crossCtx || o.Token != "" {
		t.Errorf("owner %+v", o)
	}
	msg := make([]byte, 12)
	binary.LittleEndian.PutUint32(msg, 1)
	binary.LittleEndian.PutUint32(msg[4:], 12<<16|1)
	if err := c.WriteWayland([]link.Item{{Kind: link.ItemResource, ID: 7}}, msg); err != nil {
		t.Fatal(err)
	}
	f, err := c.ReadFrame()
	if err != nil || f.Type != link.TypeWayland {
		t.Fatalf("%+v, %v", f, err)
	}
	if f, err = c.ReadFrame(); err != nil || f.Type != link.TypeError || !strings.Contains(string(f.Payload), "nothing more is wanted") {
		t.Errorf("%+v, %v", f, err)
	}
}
