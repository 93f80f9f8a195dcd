package supervise_test

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/broker/supervise"
	"github.com/gpubroker/gpubroker/broker/vhostuser/vhostusertest"
	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// TestBadFrontEnds: front-ends that the worker drops, and such as leave in the middle of a
// message, keep nobody out: the next good one is served, and nothing is left of them.
func TestBadFrontEnds(t *testing.T) {
	v := start(t, vhostusertest.QEMU11B, supervise.Config{})
	path := filepath.Join(filepath.Dir(v.control), "gpu")
	v.Quit()
	message := func(req uint32, payload ...byte) []byte {
		p := binary.LittleEndian.AppendUint32(nil, req)
		p = binary.LittleEndian.AppendUint32(p, 1)
		p = binary.LittleEndian.AppendUint32(p, uint32(len(payload)))
		return append(p, payload...)
	}
	ring9 := message(11, 9, 0, 0, 0, 0, 0, 0, 0) // GET_VRING_BASE of a ring that is not there
	before := 0
	for i := range 9 {
		for what, bytes := range map[string][]byte{
			"a ring that is not there": ring9, "half a message": ring9[:15], "noise": {1, 2, 3, 4, 5, 6, 7, 8, 255, 255, 255, 255, 9}, "nothing": nil,
		} {
			c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write(bytes); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, unix.ECONNRESET) { // with bytes that nobody read
				t.Fatalf("%s: it is not hung up on: %v", what, err)
			}
			_ = c.Close()
		}
		if i == 0 {
			before = fds(t)
		}
	}
	v.connect(vhostusertest.QEMU11B, path)
	v.ok((&virtiogpu.CtrlHdr{Type: virtiogpu.CmdGetDisplayInfo}).Append(nil))
	v.Quit()
	for end := time.Now().Add(20 * time.Second); fds(t) > before; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors, %d before", fds(t), before)
		}
	}
}
