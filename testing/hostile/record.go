package hostile

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
	"github.com/gpubroker/gpubroker/testing/lab"
)

// RecordGL runs a GL program of the root for a while and returns the traffic that a
// guest would send whose driver were the program's: Mesa's virpipe speaks vtest to a
// virgl_test_server, and what passes by becomes virtio-gpu commands. most bounds the
// bytes of the result.
func RecordGL(ctx context.Context, root *lab.Root, most int, d time.Duration, argv ...string) ([]Record, error) {
	weston, err := root.Weston(ctx, lab.WestonOptions{})
	if err != nil {
		return nil, err
	}
	defer weston.Stop()
	dir, err := os.MkdirTemp("", "vtest-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	server, proxy := filepath.Join(dir, "server"), filepath.Join(dir, "proxy")
	srv := root.Command(ctx, lab.CommandOptions{Env: []string{"LIBGL_ALWAYS_SOFTWARE=1"}},
		"virgl_test_server", "--use-egl-surfaceless", "--multi-clients", "--socket-path", server)
	release, err := lab.Start(srv)
	if err != nil {
		return nil, err
	}
	defer func() { _ = srv.Process.Kill(); _ = srv.Wait(); release() }()
	rec := &vtestRecorder{most: most}
	rec.a.add(createCtx(ctxA))
	stop, err := rec.listen(proxy, server)
	if err != nil {
		return nil, err
	}
	client := root.Command(ctx, lab.CommandOptions{Bind: []string{weston.RuntimeDir}, Env: append(weston.Env(),
		"GALLIUM_DRIVER=virpipe", "LIBGL_ALWAYS_SOFTWARE=1", "VTEST_SOCKET_NAME="+proxy)}, argv...)
	out, err := client.CombinedOutput()
	stop()
	if len(rec.a.list) < 10 {
		return nil, fmt.Errorf("%v made %d commands: %w\n%s", argv, len(rec.a.list), err, out)
	}
	return rec.a.list, nil
}

// vtestRecorder stands between a vtest client and its server.
type vtestRecorder struct {
	mu    sync.Mutex
	a     arena
	bytes int
	most  int
}

func (r *vtestRecorder) listen(proxy, server string) (stop func(), err error) {
	for range 200 { // the server's socket appears when it is ready
		if _, err = os.Stat(server); err == nil {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if err != nil {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: proxy, Net: "unix"})
	if err != nil {
		return nil, err
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			s, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: server, Net: "unix"})
			if err != nil {
				_ = c.Close()
				continue
			}
			running.Go(func() { forward(c, s); _ = c.Close() })
			running.Go(func() { _ = r.client(s, c); _ = s.Close() })
		}
	})
	return func() { _ = l.Close(); running.Wait() }, nil
}

// forward passes bytes and descriptors on.
func forward(to, from *net.UnixConn) {
	buf, oob := make([]byte, 64<<10), make([]byte, 256)
	for {
		n, nn, _, _, err := from.ReadMsgUnix(buf, oob)
		if n == 0 || err != nil {
			return
		}
		_, _, err = to.WriteMsgUnix(buf[:n], oob[:nn], nil)
		if msgs, perr := unix.ParseSocketControlMessage(oob[:nn]); perr == nil {
			for _, m := range msgs {
				fds, _ := unix.ParseUnixRights(&m)
				for _, fd := range fds {
					_ = unix.Close(fd)
				}
			}
		}
		if err != nil {
			return
		}
	}
}

// The vtest commands that become virtio-gpu's (vtest_protocol.h).
const (
	vtestUnref    = 3
	vtestSubmit   = 6
	vtestRenderer = 8
	vtestCreate2  = 12
	vtestGet2     = 13
	vtestPut2     = 14
)

// client passes the client's commands on and notes them.
func (r *vtestRecorder) client(to io.Writer, from io.Reader) error {
	var head [8]byte
	for {
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return err
		}
		n, cmd := binary.LittleEndian.Uint32(head[:]), binary.LittleEndian.Uint32(head[4:])
		size := int(n) * 4
		if cmd == vtestRenderer {
			size = int(n) // its length counts bytes
		}
		if size > 64<<20 {
			return errors.New("vtest command too long")
		}
		body := make([]byte, size)
		if _, err := io.ReadFull(from, body); err != nil {
			return err
		}
		r.note(cmd, body)
		if _, err := to.Write(append(head[:], body...)); err != nil {
			return err
		}
	}
}

func (r *vtestRecorder) note(cmd uint32, body []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.bytes > r.most {
		return
	}
	r.bytes += len(body)
	w := make([]uint32, len(body)/4)
	for i := range w {
		w[i] = binary.LittleEndian.Uint32(body[4*i:])
	}
	switch {
	case cmd == vtestSubmit && len(w) > 0:
		r.a.add(withFlags(submit(ctxA, body), virtiogpu.FlagFence, uint64(len(r.a.list)), 0))
	case cmd == vtestUnref && len(w) >= 1:
		r.a.add(ctxRes(virtiogpu.CmdCtxDetachResource, ctxA, w[0]), unref(w[0]))
	case cmd == vtestCreate2 && len(w) >= 11:
		r.a.add(create3D(virtiogpu.ResourceCreate3D{ResourceID: w[0], Target: w[1], Format: w[2], Bind: w[3], Width: w[4], Height: w[5],
			Depth: w[6], ArraySize: w[7], LastLevel: w[8], NrSamples: w[9]}))
		if w[10] > 0 && uint64(w[10]) < arenaSize/2 {
			r.a.back(w[0], uint64(w[10]))
		}
		r.a.add(ctxRes(virtiogpu.CmdCtxAttachResource, ctxA, w[0]))
	case (cmd == vtestGet2 || cmd == vtestPut2) && len(w) >= 10:
		t := virtiogpu.CmdTransferToHost3D
		if cmd == vtestGet2 {
			t = virtiogpu.CmdTransferFromHost3D
		}
		r.a.add(transfer3D(t, virtiogpu.TransferHost3D{CtrlHdr: ctxHdr(ctxA), ResourceID: w[0], Level: w[1],
			Box: virtiogpu.Box{X: w[2], Y: w[3], Z: w[4], W: w[5], H: w[6], D: w[7]}, Offset: uint64(w[9])}))
	}
}

// RecordFile records a program into a file of testdata.
func RecordFile(ctx context.Context, root *lab.Root, file string, most int, d time.Duration, argv ...string) error {
	list, err := RecordGL(ctx, root, most, d, argv...)
	if err != nil {
		return err
	}
	body, err := encodeTraffic(list)
	if err != nil {
		return err
	}
	fmt.Printf("%s: %d commands, %d bytes packed\n", file, len(list), len(body))
	return os.WriteFile(file, body, 0o644)
}
