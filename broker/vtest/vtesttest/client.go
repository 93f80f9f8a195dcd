// Package vtesttest is a vtest client for tests: it speaks as Mesa's virpipe winsys does,
// or, with Send, as nobody should.
package vtesttest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/vtest"
	"github.com/gpubroker/gpubroker/dmabuf"
)

// timeout bounds every read and write.
const timeout = 30 * time.Second

// Client is a connection. It is for one goroutine.
type Client struct {
	Version uint32 // of the protocol, as the server chose it

	conn   *net.UnixConn
	handle uint32 // given last
}

// Resource is a resource of a client.
type Resource struct {
	Handle uint32
	Mem    []byte // shared memory, nil if it has none
}

// Close unmaps the memory; the resource stays.
func (r *Resource) Close() {
	_ = dmabuf.Unmap(r.Mem)
	r.Mem = nil
}

// Connect connects and says nothing.
func Connect(path string) (*Client, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn}, nil
}

// Dial connects, gives a name and asks for a version of the protocol.
func Dial(path, name string, version uint32) (*Client, error) {
	c, err := Connect(path)
	if err != nil {
		return nil, err
	}
	if err := c.Hello(name, version); err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Hello is what Dial says.
func (c *Client) Hello(name string, version uint32) error {
	b := vtest.Header{Length: uint32(len(name) + 1), Command: vtest.CreateRenderer}.Append(nil)
	b = append(append(b, name...), 0)
	b = vtest.Header{Command: vtest.PingProtocolVersion}.Append(b)
	b = AppendBusyWait(b, 0, 0)
	if err := c.Send(b); err != nil {
		return err
	}
	if _, err := c.Reply(vtest.PingProtocolVersion, 0); err != nil {
		return err
	}
	if _, err := c.Reply(vtest.ResourceBusyWait, 1); err != nil {
		return err
	}
	return c.Choose(version)
}

// Choose asks for a version of the protocol.
func (c *Client) Choose(version uint32) error {
	w, err := c.Call(vtest.ProtocolVersion, 1, version)
	if err == nil {
		c.Version = w[0]
	}
	return err
}

// AppendBusyWait appends a RESOURCE_BUSY_WAIT.
func AppendBusyWait(b []byte, handle, flags uint32) []byte {
	return vtest.AppendWords(vtest.Header{Length: 2, Command: vtest.ResourceBusyWait}.Append(b), handle, flags)
}

// Send sends bytes as they are.
func (c *Client) Send(b []byte) error {
	_ = c.conn.SetDeadline(time.Now().Add(timeout))
	_, err := c.conn.Write(b)
	return err
}

// Message sends a message of words.
func (c *Client) Message(cmd vtest.Command, words ...uint32) error {
	return c.Send(vtest.AppendWords(vtest.Header{Length: uint32(len(words)), Command: cmd}.Append(nil), words...))
}

// Call sends a message of words and reads a reply of n.
func (c *Client) Call(cmd vtest.Command, n int, words ...uint32) ([]uint32, error) {
	if err := c.Message(cmd, words...); err != nil {
		return nil, err
	}
	return c.Reply(cmd, n)
}

// Recv reads n bytes.
func (c *Client) Recv(n int) ([]byte, error) {
	_ = c.conn.SetDeadline(time.Now().Add(timeout))
	b := make([]byte, n)
	_, err := io.ReadFull(c.conn, b)
	return b, err
}

// Reply reads a reply, which must be cmd's and have n words.
func (c *Client) Reply(cmd vtest.Command, n int) ([]uint32, error) {
	b, err := c.Recv(vtest.HeaderSize)
	if err != nil {
		return nil, err
	}
	if h := vtest.DecodeHeader(b); h.Command != cmd || h.Length != uint32(n) {
		return nil, fmt.Errorf("reply %v of %d words, want %v of %d", h.Command, h.Length, cmd, n)
	}
	if b, err = c.Recv(4 * n); err != nil {
		return nil, err
	}
	words := make([]uint32, n)
	for i := range words {
		words[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return words, nil
}

// FD reads a descriptor, the caller's.
func (c *Client) FD() (*dmabuf.FD, error) {
	_ = c.conn.SetDeadline(time.Now().Add(timeout))
	var b [1]byte
	oob := make([]byte, unix.CmsgSpace(4*4))
	n, on, _, _, err := c.conn.ReadMsgUnix(b[:], oob)
	if err != nil {
		return nil, err
	}
	list, err := unix.ParseSocketControlMessage(oob[:on])
	if err != nil || n != 1 || len(list) != 1 {
		return nil, fmt.Errorf("%d bytes and %d control messages instead of a descriptor: %w", n, len(list), err)
	}
	fds, err := unix.ParseUnixRights(&list[0])
	if err != nil || len(fds) != 1 {
		return nil, fmt.Errorf("%d descriptors, want 1: %w", len(fds), err)
	}
	unix.CloseOnExec(fds[0])
	return dmabuf.NewFD(fds[0], "from vtest server"), nil
}

// Caps reads a capability set with GET_CAPS (1) or GET_CAPS2 (2).
func (c *Client) Caps(set uint32) ([]byte, error) {
	cmd := vtest.GetCaps
	if set == 2 {
		cmd = vtest.GetCaps2
	}
	if err := c.Message(cmd); err != nil {
		return nil, err
	}
	b, err := c.Recv(vtest.HeaderSize)
	if err != nil {
		return nil, err
	}
	h := vtest.DecodeHeader(b)
	if uint32(h.Command) != set || h.Length < 5 || h.Length > 1<<16 {
		return nil, fmt.Errorf("capability set %d of %d bytes, asked for %d", h.Command, h.Length-1, set)
	}
	return c.Recv(int(h.Length - 1))
}

// Create makes a resource; q.Handle is chosen.
func (c *Client) Create(q vtest.Create) (*Resource, error) {
	if c.Version < 3 {
		c.handle++
		q.Handle = c.handle
	}
	if err := c.Send(q.Append(nil, c.Version >= 2)); err != nil {
		return nil, err
	}
	r := &Resource{Handle: q.Handle}
	if c.Version >= 3 {
		w, err := c.Reply(vtest.ResourceCreate2, 1)
		if err != nil {
			return nil, err
		}
		r.Handle = w[0]
	}
	if c.Version < 2 || q.DataSize == 0 {
		return r, nil
	}
	fd, err := c.FD()
	if err != nil {
		return nil, err
	}
	defer func() { _ = fd.Close() }()
	r.Mem, err = dmabuf.Map(fd, int64(q.DataSize), true)
	return r, err
}

// Texture is Create of a B8G8R8A8 render target with its memory.
func (c *Client) Texture(w, h uint32) (*Resource, error) {
	return c.Create(vtest.Create{Target: 2, Format: 1, Bind: 1<<1 | 1<<3, Width: w, Height: h, Depth: 1, ArraySize: 1, DataSize: w * h * 4})
}

// Unref destroys a resource.
func (c *Client) Unref(handle uint32) error { return c.Message(vtest.ResourceUnref, handle) }

// Submit runs a command stream.
func (c *Client) Submit(stream []byte) error {
	return c.Send(append(vtest.Header{Length: uint32(len(stream) / 4), Command: vtest.SubmitCmd}.Append(nil), stream...))
}

// Busy asks whether work is unfinished; with wait it waits until none is.
func (c *Client) Busy(handle uint32, wait bool) (bool, error) {
	flags := uint32(0)
	if wait {
		flags = vtest.BusyWaitFlagWait
	}
	w, err := c.Call(vtest.ResourceBusyWait, 1, handle, flags)
	if err != nil {
		return false, err
	}
	return w[0] != 0, nil
}

// Read returns a rectangle of 4-byte texels of a resource: by its memory where the
// protocol has it, else by the stream.
func (c *Client) Read(r *Resource, x, y, w, h uint32) ([]byte, error) {
	t := vtest.Transfer{Handle: r.Handle, X: x, Y: y, W: w, H: h, D: 1, DataSize: w * h * 4}
	if c.Version < 2 {
		if err := c.Send(t.AppendGet(nil)); err != nil {
			return nil, err
		}
		return c.Recv(int(w * h * 4))
	}
	if r.Mem == nil {
		return nil, errors.New("the resource has no memory")
	}
	if err := c.Send(t.AppendGet2(nil)); err != nil {
		return nil, err
	}
	_, err := c.Busy(r.Handle, true)
	return r.Mem, err
}

// Gone reports how the server ended the connection: nil if it did, and an error if there
// is something to read or it stays open.
func (c *Client) Gone() error {
	_ = c.conn.SetDeadline(time.Now().Add(timeout))
	var b [1]byte
	n, err := c.conn.Read(b[:])
	switch {
	case n > 0:
		return fmt.Errorf("the server sent byte %#x instead of closing", b[0])
	case errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET):
		return nil
	}
	return fmt.Errorf("the server did not close: %w", err)
}
