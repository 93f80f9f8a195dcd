package guests_test

import (
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/testing/lab"
	"github.com/gpubroker/gpubroker/testing/lab/labtest"
)

// TestBadFrontEnd: what speaks no vhost-user, or speaks it wrongly, is dropped, and
// the next front-end, a good one, is served.
func TestBadFrontEnd(t *testing.T) {
	t.Parallel()
	r := waylandRig(t, "--virgl=on")
	before := r.footprint()
	for seed := range uint64(60) {
		rnd := rand.New(rand.NewPCG(1, seed))
		switch seed % 3 {
		case 0:
			bother(t, r.broker.Socket, func(c *net.UnixConn) error { return noise(c, rnd) })
		case 1:
			bother(t, r.broker.Socket, func(c *net.UnixConn) error { return nonsense(c, rnd) })
		case 2:
			bother(t, r.broker.Socket, func(c *net.UnixConn) error { return torn(c, rnd) })
		}
	}
	r.settlesAt(t, "sixty bad front-ends", before)
	r.vm = labtest.VM(t, lab.VMConfig{SMP: 1, Devices: r.gpu("vhost-user-gpu-pci")})
	share(t, r.vm, bin(t, "guestpaint"))
	check(t, r.vm, loadDriver+"/lab/share/guestpaint fb")
	showsEventually(t, "after bad front-ends", r.shoot(t), painted(screenW, screenH), exact)
}

// bother connects, says something and reads what comes back until the broker hangs
// up, or for a short while.
func bother(t *testing.T, socket string, say func(*net.UnixConn) error) {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(2 * time.Second))
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		_, _ = io.Copy(io.Discard, c)
	}()
	err = say(c)
	if err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	_ = c.CloseWrite()
	<-heard
}

// noise is random bytes.
func noise(c *net.UnixConn, rnd *rand.Rand) error {
	p := make([]byte, 1+rnd.IntN(8192))
	for i := range p {
		p[i] = byte(rnd.Uint32())
	}
	_, err := c.Write(p)
	return err
}

// shapes are the requests with the size of their payload in bytes and the number of
// their descriptors (QEMU's docs/interop/vhost-user.rst).
var shapes = []struct {
	req       uint32
	size, fds int
}{
	{1, 0, 0}, {2, 8, 0}, {3, 0, 0}, {4, 0, 0}, {5, 8 + 32, 1}, {8, 8, 0}, {9, 40, 0}, {10, 8, 0}, {11, 8, 0},
	{12, 8, 1}, {13, 8, 1}, {14, 8, 1}, {15, 0, 0}, {16, 8, 0}, {17, 0, 0}, {18, 8, 0}, {21, 0, 1}, {24, 12 + 24, 0},
	{25, 12 + 24, 0}, {33, 0, 1}, {34, 0, 0}, {36, 0, 0}, {37, 40, 1}, {38, 40, 0}, {44, 0, 0},
}

// nonsense is messages that are framed well and often of the right shape, with
// contents and descriptors that mean nothing.
func nonsense(c *net.UnixConn, rnd *rand.Rand) error {
	for range 300 {
		shape := shapes[rnd.IntN(len(shapes))]
		if rnd.IntN(100) == 0 {
			shape.req, shape.size, shape.fds = uint32(rnd.IntN(64)), rnd.IntN(100), rnd.IntN(4)
		}
		payload := make([]byte, shape.size)
		for i := range payload {
			if rnd.IntN(4) == 0 { // mostly zeros: valid indices are small
				payload[i] = byte(rnd.Uint32() & rnd.Uint32() & rnd.Uint32())
			}
		}
		flags := uint32(1)
		if rnd.IntN(2) == 0 {
			flags |= 1 << 3 // NEED_REPLY
		}
		if err := message(c, shape.req, flags, payload, shape.fds); err != nil {
			return err
		}
	}
	return nil
}

// torn is a good beginning that ends in the middle of a message.
func torn(c *net.UnixConn, rnd *rand.Rand) error {
	for _, req := range []uint32{1, 15, 3, 1} { // GET_FEATURES, GET_PROTOCOL_FEATURES, SET_OWNER, GET_FEATURES
		if err := message(c, req, 1, nil, 0); err != nil {
			return err
		}
	}
	head := binary.LittleEndian.AppendUint32(nil, 5) // SET_MEM_TABLE
	head = binary.LittleEndian.AppendUint32(head, 1)
	head = binary.LittleEndian.AppendUint32(head, 8+32)
	whole := append(head, make([]byte, 8+32)...)
	_, err := c.Write(whole[:1+rnd.IntN(len(whole)-1)])
	return err
}

// message sends a message with n descriptors of /dev/null.
func message(c *net.UnixConn, req, flags uint32, payload []byte, n int) error {
	p := binary.LittleEndian.AppendUint32(nil, req)
	p = binary.LittleEndian.AppendUint32(p, flags)
	p = binary.LittleEndian.AppendUint32(p, uint32(len(payload)))
	p = append(p, payload...)
	var rights []byte
	if n > 0 {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return err
		}
		defer func() { _ = null.Close() }()
		fds := make([]int, n)
		for i := range fds {
			fds[i] = int(null.Fd())
		}
		rights = unix.UnixRights(fds...)
	}
	_, _, err := c.WriteMsgUnix(p, rights, nil)
	return err
}
