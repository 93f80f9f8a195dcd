package proxytest

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// Display is a Wayland display on this machine whose clients go through a proxy: real
// programs stand for a guest's. Memory that they share becomes a resource, with the
// pool's descriptor as its blob.
type Display struct {
	Path string // of the socket, for WAYLAND_DISPLAY

	p      *proxy.Proxy
	res    *Resources
	listen *dmabuf.FD
	wg     sync.WaitGroup
	mu     sync.Mutex
	next   uint32  // guarded by mu: the next resource's id
	errs   []error // guarded by mu
}

// Listen starts a display, which ends with the test.
func Listen(t testing.TB, p *proxy.Proxy, res *Resources) *Display {
	t.Helper()
	dir, err := os.MkdirTemp("", "px")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	raw, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := &Display{Path: filepath.Join(dir, "wayland"), p: p, res: res, listen: dmabuf.NewFD(raw, "test display"), next: 1000}
	if err := unix.Bind(raw, &unix.SockaddrUnix{Name: d.Path}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(raw, 16); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	d.wg.Add(1)
	go d.accept(ctx)
	t.Cleanup(func() {
		cancel()
		d.wg.Wait()
		_ = d.listen.Close()
		res.closeBlobs(1000)
	})
	return d
}

// Errors returns how clients ended that did not leave in an orderly way.
func (d *Display) Errors() []error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return append([]error(nil), d.errs...)
}

func (d *Display) accept(ctx context.Context) {
	defer d.wg.Done()
	for {
		polls := []unix.PollFd{{Fd: int32(d.listen.Int()), Events: unix.POLLIN}}
		_, _ = unix.Poll(polls, 20)
		if ctx.Err() != nil {
			return
		}
		raw, _, err := unix.Accept4(d.listen.Int(), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			continue
		}
		d.wg.Add(1)
		go func() {
			defer d.wg.Done()
			s := &socket{d: d, fd: dmabuf.NewFD(raw, "test client"), in: make([]byte, 1<<16), oob: make([]byte, unix.CmsgSpace(4*28))}
			if err := d.p.Serve(ctx, s, proxy.Owner{}); err != nil && ctx.Err() == nil {
				d.mu.Lock()
				d.errs = append(d.errs, err)
				d.mu.Unlock()
			}
		}()
	}
}

// socket is a real client as a proxy.Guest.
type socket struct {
	d   *Display
	fd  *dmabuf.FD
	in  []byte
	oob []byte
}

// Dialect implements proxy.Guest: descriptors are items, one by one.
func (s *socket) Dialect() proxy.Dialect {
	return proxy.Dialect{Transport: "unix", Name: "test client", HasClock: true, FeedbackRaw: true}
}

// Recv implements proxy.Guest.
func (s *socket) Recv(ctx context.Context) (proxy.Chunk, error) {
	for {
		n, oobn, _, _, err := unix.Recvmsg(s.fd.Int(), s.in, s.oob, unix.MSG_CMSG_CLOEXEC)
		if errors.Is(err, unix.EAGAIN) {
			if err := s.poll(ctx, unix.POLLIN); err != nil {
				return proxy.Chunk{}, err
			}
			continue
		}
		if err != nil || n == 0 {
			return proxy.Chunk{}, io.EOF
		}
		items, err := s.items(s.oob[:oobn])
		return proxy.Chunk{Data: s.in[:n], Items: items}, err
	}
}

func (s *socket) poll(ctx context.Context, events int16) error {
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd.Int()), Events: events}}, 20)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if n > 0 || (err != nil && !errors.Is(err, unix.EINTR)) {
			return err
		}
	}
}

// items turns descriptors into what stands for them.
func (s *socket) items(oob []byte) (items []proxy.Item, err error) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for i := range msgs {
		raws, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return items, err
		}
		for _, raw := range raws {
			fd := dmabuf.NewFD(raw, "test client's")
			var st unix.Stat_t
			if err := unix.Fstat(raw, &st); err != nil {
				return items, err
			}
			if st.Mode&unix.S_IFMT == unix.S_IFREG {
				items = append(items, proxy.Item{Kind: proxy.ItemResource, Device: proxy.DeviceImport, Resource: s.d.add(fd)})
			} else {
				items = append(items, proxy.Item{Kind: proxy.ItemPipe, FD: fd})
			}
		}
	}
	return items, nil
}

// add makes a resource of shared memory.
func (d *Display) add(fd *dmabuf.FD) uint32 {
	d.mu.Lock()
	d.next++
	id := d.next
	d.mu.Unlock()
	d.res.Add(proxy.DeviceImport, id, &Resource{Blob: fd})
	return id
}

// Send implements proxy.Guest.
func (s *socket) Send(ctx context.Context, c proxy.Chunk) error {
	defer closeItems(c.Items)
	var raws []int
	for i := range c.Items {
		it := &c.Items[i]
		if it.Kind == proxy.ItemBytes {
			fd, err := dmabuf.NewMemfd("by value", int64(len(it.Bytes)))
			if err != nil {
				return err
			}
			if _, err := unix.Pwrite(fd.Int(), it.Bytes, 0); err != nil {
				return err
			}
			it.FD = fd
		}
		raws = append(raws, it.FD.Int())
	}
	var oob []byte
	if len(raws) > 0 {
		oob = unix.UnixRights(raws...)
	}
	for data := c.Data; len(data) > 0; {
		n, err := unix.SendmsgN(s.fd.Int(), data, oob, nil, unix.MSG_NOSIGNAL)
		if errors.Is(err, unix.EAGAIN) {
			if err := s.poll(ctx, unix.POLLOUT); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return io.EOF
		}
		data, oob = data[n:], nil
	}
	return nil
}

// Fail implements proxy.Guest.
func (s *socket) Fail(error) {}

// Close implements proxy.Guest.
func (s *socket) Close() error { return s.fd.Close() }
