package apps

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/display"
	"github.com/gpubroker/gpubroker/broker/link"
	"github.com/gpubroker/gpubroker/broker/wayland/proxy"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// message is a Wayland message of size bytes.
func message(size int) []byte {
	m := bytes.Repeat([]byte{0xab}, size)
	binary.LittleEndian.PutUint32(m, 1)
	binary.LittleEndian.PutUint32(m[4:], uint32(size)<<16|3)
	return m
}

// carriers are the ways to a service; each returns a new stream to it.
func carriers(t *testing.T, h Handler) (*Service, map[string]func() io.ReadWriteCloser) {
	dir := t.TempDir()
	s := start(t, Config{Handler: h, Socket: dir + "/apps", VSock: "unix:" + dir + "/v:77", Serial: dir + "/serial", GPU: true})
	mux := link.NewMux(t.Context(), dialUnix(t, dir+"/serial"))
	t.Cleanup(func() { mux.Close() })
	return s, map[string]func() io.ReadWriteCloser{
		TransportUnix: func() io.ReadWriteCloser { return dialUnix(t, dir+"/apps") },
		// As a VMM does when the guest connects to port 77 of the host.
		TransportVSock: func() io.ReadWriteCloser { return dialUnix(t, dir+"/v_77") },
		TransportSerial: func() io.ReadWriteCloser {
			c, err := mux.Open(timeout(t))
			if err != nil {
				t.Fatal(err)
			}
			return c
		},
		TransportCrossDomain: func() io.ReadWriteCloser {
			a, b := net.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = s.ServeStream(t.Context(), b, TransportCrossDomain, proxy.Owner{Ctx: 5})
			}()
			t.Cleanup(func() { a.Close(); <-done })
			return a
		},
	}
}

// TestCarriers: what a client says arrives, what the compositor says comes back, over
// each carrier.
func TestCarriers(t *testing.T) {
	keymap := bytes.Repeat([]byte("keymap "), 10000)
	pixels := bytes.Repeat([]byte{1, 2, 3, 4}, 40*30)
	handler := handlerFunc(func(ctx context.Context, g proxy.Guest, o proxy.Owner) error {
		d := g.Dialect()
		if d.Name != "test client" || d.RenderDev != 57984 || !d.BufferItems || !d.HasClock || time.Duration(d.ClockOffset).Abs() > time.Second {
			return fmt.Errorf("dialect %+v", d)
		}
		if !strings.HasPrefix(o.Token, "token") || (o.Ctx == 5) != (d.Transport == TransportCrossDomain) {
			return fmt.Errorf("owner %+v on %s", o, d.Transport)
		}
		u, err := g.Recv(ctx)
		if err != nil {
			return err
		}
		if u.Update == nil || u.Update.Buffer != 7 || u.Update.Rect != (display.Rect{X: 1, Y: 2, W: 40, H: 30}) || !bytes.Equal(u.Update.Pixels, pixels) {
			return fmt.Errorf("update %+v", u.Update)
		}
		c, err := g.Recv(ctx)
		if err != nil {
			return err
		}
		if !bytes.Equal(c.Data, message(24)) || len(c.Items) != 4 {
			return fmt.Errorf("%d bytes, items %+v", len(c.Data), c.Items)
		}
		res, pipe := c.Items[0], c.Items[1]
		if res.Kind != proxy.ItemResource || res.Device != proxy.DeviceImport || res.Resource != 99 || res.Offset != 8192 ||
			c.Items[2].Kind != proxy.ItemMemory || string(c.Items[3].Bytes) != "icc" || pipe.Kind != proxy.ItemPipe {
			return fmt.Errorf("items %+v", c.Items)
		}
		// The compositor writes into the client's pipe, and sends one of its own with a keymap.
		if err := write(pipe.FD, "to the guest"); err != nil {
			return err
		}
		pipe.Close()
		r, w, err := os.Pipe()
		if err != nil {
			return err
		}
		defer r.Close()
		fd, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0)
		w.Close()
		if err != nil {
			return err
		}
		items := []proxy.Item{{Kind: proxy.ItemBytes, Bytes: keymap}, {Kind: proxy.ItemPipe, FD: dmabuf.NewFD(fd, "compositor's")}}
		if err := g.Send(ctx, proxy.Chunk{Data: message(16), Items: items}); err != nil {
			return err
		}
		// What comes out of the pipe needs somebody who receives.
		end := make(chan error, 1)
		go func() { _, err := g.Recv(ctx); end <- err }()
		_ = r.SetReadDeadline(time.Now().Add(patience))
		got, err := io.ReadAll(r)
		if err != nil || string(got) != "to the host" {
			return fmt.Errorf("%q %w", got, err)
		}
		if err := g.Send(ctx, proxy.Chunk{Data: message(8)}); err != nil {
			return err
		}
		return <-end
	})
	s, dial := carriers(t, handler)
	for name, open := range dial {
		t.Run(name, func(t *testing.T) {
			c := client(t, open(), "token "[:5]+name[:4])
			if err := c.WriteUpdate(link.Update{Buffer: 7, X: 1, Y: 2, W: 40, H: 30, BytesPerPixel: 4}, pixels, 160); err != nil {
				t.Fatal(err)
			}
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer r.Close()
			raw, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			w.Close()
			if err != nil {
				t.Fatal(err)
			}
			id, err := c.NamePipe(dmabuf.NewFD(raw, "client's"))
			if err != nil {
				t.Fatal(err)
			}
			err = c.WriteWayland([]link.Item{
				{Kind: link.ItemResource, Device: link.DeviceImport, ID: 99, Offset: 8192}, {Kind: link.ItemPipe, ID: id},
				{Kind: link.ItemMemory}, {Kind: link.ItemBytes, Bytes: []byte("icc")},
			}, message(24))
			if err != nil {
				t.Fatal(err)
			}
			f, err := c.Recv()
			if err != nil {
				t.Fatal(err)
			}
			items, data, err := link.DecodeWayland(f.Payload, link.Host, nil)
			if err != nil || !bytes.Equal(data, message(16)) || len(items) != 2 || !bytes.Equal(items[0].Bytes, keymap) {
				t.Fatal(len(data), items, err)
			}
			fd, err := c.AcceptPipe(items[1].ID)
			if err != nil {
				t.Fatal(err)
			}
			if err := write(fd, "to the host"); err != nil {
				t.Fatal(err)
			}
			fd.Close()
			if f, err = c.Recv(); err != nil || !bytes.Equal(f.Payload[4:], message(8)) {
				t.Fatal(f, err)
			}
			gone := make(chan struct{})
			go func() { // the pipe's data may come last
				defer close(gone)
				for {
					if _, err := c.Recv(); err != nil {
						return
					}
				}
			}()
			defer func() { c.Close(); <-gone }()
			if err := c.DrainPipes(timeout(t)); err != nil {
				t.Fatal(err)
			}
			_ = r.SetReadDeadline(time.Now().Add(patience))
			if got, err := io.ReadAll(r); err != nil || string(got) != "to the guest" {
				t.Errorf("%q %v", got, err)
			}
			c.Close()
			eventually(t, "the client's end", func() bool { return s.Status().Transports[name].Served == 1 })
			st := s.Status().Transports[name]
			if st.Clients != 0 || st.Refused != 0 || st.FramesIn < 5 || st.BytesIn < 100 || st.BytesOut < uint64(len(keymap)) || st.Pipes != 0 {
				t.Errorf("status %+v", st)
			}
		})
	}
	if s.Status().Queued != 0 {
		t.Errorf("status %+v", s.Status())
	}
}

func write(fd *dmabuf.FD, s string) error {
	_, err := unix.Write(fd.Int(), []byte(s))
	return err
}

// refusal makes a connection that is turned away and returns what the guest's end is
// told.
func refusal(t *testing.T, path, token string) error {
	t.Helper()
	c, _, err := link.ClientHandshake(timeout(t), dialUnix(t, path), link.Hello{Token: token}, link.Limits{})
	if err == nil {
		c.Close()
	}
	return err
}

func TestTokens(t *testing.T) {
	path := socketPath(t)
	s := start(t, Config{Handler: handlerFunc(discard), Socket: path})
	first := client(t, dialUnix(t, path), "abc")
	if err := refusal(t, path, "abc"); err == nil || !strings.Contains(err.Error(), "token") {
		t.Errorf("second client with the token: %v", err)
	}
	client(t, dialUnix(t, path), "abd")
	client(t, dialUnix(t, path), "") // those without are not alike
	client(t, dialUnix(t, path), "")
	first.Close()
	eventually(t, "the first client's end", func() bool { return s.Status().Transports["unix"].Served == 1 })
	client(t, dialUnix(t, path), "abc")
}

func TestClientLimit(t *testing.T) {
	path := socketPath(t)
	s := start(t, Config{Handler: handlerFunc(discard), Socket: path, Limits: Limits{Clients: 2, Handshake: time.Second}})
	client(t, dialUnix(t, path), "")
	second := client(t, dialUnix(t, path), "")
	if err := refusal(t, path, ""); err == nil || !strings.Contains(err.Error(), "too many clients: 2") {
		t.Errorf("third client: %v", err)
	}
	// Connections that say nothing are bounded, too, and end.
	var silent []net.Conn
	for range handshakesBeyondLimit + 10 {
		silent = append(silent, dialUnix(t, path))
	}
	for _, c := range silent {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := io.ReadAll(c); err != nil && !errors.Is(err, unix.ECONNRESET) {
			t.Fatalf("a silent connection: %v", err)
		}
	}
	second.Close()
	eventually(t, "room", func() bool { return s.Status().Transports["unix"].Clients == 1 })
	client(t, dialUnix(t, path), "")
	eventually(t, "all are counted", func() bool {
		return s.Status().Transports["unix"].Refused == 1+handshakesBeyondLimit+10
	})
}

// TestHandlerError: why a client ends is said to the guest's end.
func TestHandlerError(t *testing.T) {
	path := socketPath(t)
	start(t, Config{Socket: path, Handler: handlerFunc(func(ctx context.Context, g proxy.Guest, _ proxy.Owner) error {
		_, _ = g.Recv(ctx)
		return errors.New("no compositor")
	})})
	c := client(t, dialUnix(t, path), "")
	if err := c.WriteWayland(nil, message(8)); err != nil {
		t.Fatal(err)
	}
	_, err := c.Recv()
	var remote *link.RemoteError
	if !errors.As(err, &remote) || remote.Text != "no compositor" {
		t.Errorf("the client hears %v", err)
	}
}

// TestProtocolError: one that breaks the protocol hears why, and the others go on.
func TestProtocolError(t *testing.T) {
	path := socketPath(t)
	ends := make(chan error, 2)
	start(t, Config{Socket: path, Handler: handlerFunc(func(ctx context.Context, g proxy.Guest, o proxy.Owner) error {
		err := discard(ctx, g, o)
		ends <- err
		return err
	})})
	good, bad := client(t, dialUnix(t, path), ""), client(t, dialUnix(t, path), "")
	// The second item is wrong; the pipe before it is made and must not stay.
	payload := append([]byte{2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, make([]byte, 16)...)
	payload[20], payload[24] = 2, 1
	if err := bad.WriteFrame(link.TypeWayland, payload); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := bad.ReadFrame() // first it hears that the pipe has ended
		if err != nil {
			t.Fatal(err)
		}
		if f.Type == link.TypeError {
			if !strings.Contains(string(f.Payload), "pipe id 1") {
				t.Errorf("the client hears %q", f.Payload)
			}
			break
		}
	}
	if err := <-ends; !errors.Is(err, link.ErrProtocol) {
		t.Errorf("the handler sees %v", err)
	}
	if err := good.WriteWayland(nil, message(8)); err != nil {
		t.Fatal(err)
	}
	good.Close()
	if err := <-ends; err != io.EOF {
		t.Errorf("the other client: %v", err)
	}
}

// TestSlow: a client that does not read, and one whose compositor does not, keep
// neither the others nor the service's end waiting; memory stays.
func TestSlow(t *testing.T) {
	_, dial := carriers(t, handlerFunc(func(ctx context.Context, g proxy.Guest, o proxy.Owner) error {
		switch o.Token {
		case "flood":
			for {
				if err := g.Send(ctx, proxy.Chunk{Data: message(4096)}); err != nil {
					return err
				}
			}
		case "stuck":
			<-ctx.Done()
			return ctx.Err()
		}
		for {
			c, err := g.Recv(ctx)
			if err != nil {
				return err
			}
			if err := g.Send(ctx, proxy.Chunk{Data: c.Data}); err != nil {
				return err
			}
		}
	}))
	done := make(chan struct{})
	stuck := client(t, dial[TransportSerial](), "stuck")
	go func() {
		defer close(done)
		for stuck.WriteWayland(nil, message(60000)) == nil {
		}
	}()
	t.Cleanup(func() { stuck.Close(); <-done })
	client(t, dial[TransportSerial](), "flood")
	for name, open := range dial {
		c := client(t, open(), "")
		for i := range 300 {
			m := message(8 + i*16)
			if err := c.WriteWayland(nil, m); err != nil {
				t.Fatal(err)
			}
			f, err := c.Recv()
			if err != nil || !bytes.Equal(f.Payload[4:], m) {
				t.Fatalf("%s, message %d: %v", name, i, err)
			}
		}
	}
}

// TestContextEndsRecvAndSend: the handler's own contexts end its calls, and the guest's
// end still hears why.
func TestContextEndsRecvAndSend(t *testing.T) {
	path := socketPath(t)
	got := make(chan error, 2)
	start(t, Config{Socket: path, Handler: handlerFunc(func(ctx context.Context, g proxy.Guest, _ proxy.Owner) error {
		short, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		_, err := g.Recv(short)
		got <- err
		g.Fail(errors.New("compositor gone"))
		short, cancel = context.WithTimeout(ctx, 50*time.Millisecond)
		defer cancel()
		for err = nil; err == nil; {
			err = g.Send(short, proxy.Chunk{Data: message(60000)})
		}
		got <- err
		return nil
	})})
	c := client(t, dialUnix(t, path), "")
	for range 2 {
		if err := <-got; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	}
	var remote *link.RemoteError
	if _, err := c.Recv(); !errors.As(err, &remote) || remote.Text != "compositor gone" {
		t.Errorf("the client hears %v", err)
	}
}

// TestClose ends clients, streams, handshakes and listeners.
func TestClose(t *testing.T) {
	s, dial := carriers(t, handlerFunc(discard))
	conns := map[string]*link.Conn{}
	for name, open := range dial {
		conns[name] = client(t, open(), "")
		_ = open() // says nothing
		// One that is still in its handshake hears nothing.
		eventually(t, name, func() bool { return s.Status().Transports[name].Clients == 1 })
	}
	s.Close()
	for name, c := range conns {
		_, err := c.Recv()
		if err == nil {
			t.Errorf("%s: a client goes on", name)
		}
		var remote *link.RemoteError
		told := errors.As(err, &remote) && strings.Contains(remote.Text, ErrClosed.Error())
		// A port ends with its last words, and a pipe waits for who reads them only now.
		if own := name == TransportUnix || name == TransportVSock; own && !told {
			t.Errorf("%s: a client was told %v", name, err)
		}
	}
	if err := s.ServeStream(t.Context(), dialUnix2(t), "x", proxy.Owner{}); err != ErrClosed {
		t.Errorf("ServeStream: %v", err)
	}
	s.Close()
}

func dialUnix2(t *testing.T) io.ReadWriteCloser {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close() })
	return b
}

func TestListenErrors(t *testing.T) {
	for name, cfg := range map[string]Config{
		"folder":    {Socket: t.TempDir()},
		"no folder": {Serial: t.TempDir() + "/a/b"},
		"vsock":     {Socket: socketPath(t), VSock: "nonsense"},
	} {
		cfg.Handler = handlerFunc(discard)
		if s, err := New(cfg); err == nil {
			s.Close()
			t.Errorf("%s: no error", name)
		}
	}
}

func TestParseVSock(t *testing.T) {
	for in, want := range map[string]VSock{
		"5000":             {Port: 5000},
		"0":                {Port: DefaultPort},
		"3:5000":           {CID: 3, Port: 5000},
		"3:":               {CID: 3, Port: DefaultPort},
		"unix:/run/v":      {Path: "/run/v", Port: DefaultPort},
		"unix:/run/v:5000": {Path: "/run/v", Port: 5000},
		"unix:/run/v:":     {Path: "/run/v", Port: DefaultPort},
	} {
		if got, err := ParseVSock(in); err != nil || got != want {
			t.Errorf("%q: %+v %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "x", "-1", "0:5", "a:5", "4294967296", "4294967295", "unix:", "unix::5", "unix:/a:b"} {
		if got, err := ParseVSock(in); err == nil {
			t.Errorf("%q: %+v, want an error", in, got)
		}
	}
}
