package virtq

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/gpubroker/gpubroker/dmabuf"
)

func TestConfig(t *testing.T) {
	d := newDriver(t, 8, 0, true, true)
	good := Config{Index: 1, Size: 8, Desc: d.mem[descAt:], Avail: d.mem[availAt:], Used: d.mem[usedAt:], Mem: d.m}
	if _, err := New(good); err != nil {
		t.Fatal(err)
	}
	bad := []struct {
		name string
		edit func(c *Config)
	}{
		{"size 0", func(c *Config) { c.Size = 0 }},
		{"size -1", func(c *Config) { c.Size = -1 }},
		{"size 3", func(c *Config) { c.Size = 3 }},
		{"size 65536", func(c *Config) { c.Size = 65536 }},
		{"no memory", func(c *Config) { c.Mem = nil }},
		{"short descriptors", func(c *Config) { c.Desc = c.Desc[:127] }},
		{"short available ring", func(c *Config) { c.Avail = c.Avail[:21] }},
		{"short used ring", func(c *Config) { c.Used = c.Used[:69] }},
		{"descriptors not aligned", func(c *Config) { c.Desc = c.Desc[8:] }},
		{"available ring not aligned", func(c *Config) { c.Avail = c.Avail[1:] }},
		{"used ring not aligned", func(c *Config) { c.Used = c.Used[2:] }},
	}
	for _, tt := range bad {
		c := good
		tt.edit(&c)
		_, err := New(c)
		var op *OpError
		if !errors.Is(err, ErrConfig) || !errors.As(err, &op) || op.Queue != 1 {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// TestAvailAlign2 puts the available ring at an address aligned to 2 only, which
// the specification allows: its index then lies in the low half of a word.
func TestAvailAlign2(t *testing.T) {
	d := newDriver(t, 8, 0, true, false)
	avail := d.mem[availAt+2:]
	if err := d.q.SetRing(d.mem[descAt:], avail, d.mem[usedAt:]); err != nil {
		t.Fatal(err)
	}
	d.desc(descAt, 5, bufAt, 16, 0, 0)
	avail[4] = 5 // ring[0]
	avail[2] = 1 // idx
	avail[20] = 0xff
	avail[21] = 0xff // used_event: 0xffff, never
	var c Chain
	if ok, err := d.q.Next(&c); !ok || err != nil || c.Head != 5 {
		t.Fatalf("%t, %v, head %d", ok, err, c.Head)
	}
	if err := d.q.Push(5, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.q.Notify(); err != nil || !d.interrupted() {
		t.Errorf("the first notification: %v", err)
	}
	if err := d.q.Push(5, 0); err != nil {
		t.Fatal(err)
	}
	if err := d.q.Notify(); err != nil || d.interrupted() {
		t.Errorf("interrupt although used_event is far away: %v", err)
	}
}

func TestNotifyFlags(t *testing.T) {
	d := newDriver(t, 8, 0, false, false)
	if err := d.q.Notify(); err != nil || !d.interrupted() {
		t.Errorf("the first notification after a start must come: %v", err)
	}
	if err := d.q.Notify(); err != nil || d.interrupted() {
		t.Errorf("interrupt without anything pushed: %v", err)
	}
	for _, off := range []bool{false, true} {
		d.setAvailFlags(uint16(map[bool]int{false: 0, true: availNoInterrupt}[off]))
		_ = d.q.Push(0, 0)
		if err := d.q.Notify(); err != nil {
			t.Fatal(err)
		}
		if got := d.interrupted(); got == off {
			t.Errorf("interrupted %t with NO_INTERRUPT %t", got, off)
		}
	}
	_ = d.q.DisableKicks()
	if d.usedFlags() != usedNoNotify {
		t.Errorf("used flags %#x after DisableKicks", d.usedFlags())
	}
	_ = d.q.Push(0, 0)
	if d.usedFlags() != usedNoNotify {
		t.Error("Push cleared the flags")
	}
	d.push(0)
	if pending, err := d.q.EnableKicks(); !pending || err != nil || d.usedFlags() != 0 {
		t.Errorf("EnableKicks: pending %t, %v, flags %#x", pending, err, d.usedFlags())
	}
}

// TestNotifyEvent compares every distance of used_event with the formula of the
// specification, across the wrap of the indices.
func TestNotifyEvent(t *testing.T) {
	for _, start := range []uint16{0, 0xfffe} {
		for batch := 1; batch <= 4; batch++ {
			for event := -3; event <= 6; event++ {
				d := newDriver(t, 8, start, true, false)
				_ = d.q.Notify() // always interrupts; sets the base
				d.interrupted()
				old := d.q.UsedIdx()
				d.setUsedEvent(old + uint16(event))
				for range batch {
					_ = d.q.Push(0, 0)
				}
				if err := d.q.Notify(); err != nil {
					t.Fatal(err)
				}
				// The driver wants to hear when the entry numbered event is used.
				want := event >= 0 && event < batch
				if got := d.interrupted(); got != want {
					t.Errorf("start %d, %d pushed, event +%d: interrupted %t, want %t", start, batch, event, got, want)
				}
			}
		}
	}
}

func TestEnableKicksEvent(t *testing.T) {
	d := newDriver(t, 8, 0xfffd, true, false)
	d.desc(descAt, 0, bufAt, 16, 0, 0)
	word := usedAt + usedHead + usedElemSize*d.size
	d.put16(word+2, 0xabcd) // what lies behind avail_event is not ours
	var c Chain
	for range 6 {
		d.push(0)
		if pending, err := d.q.EnableKicks(); err != nil || !pending {
			t.Fatalf("EnableKicks with a chain waiting: %t, %v", pending, err)
		}
		if ok, err := d.q.Next(&c); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if pending, err := d.q.EnableKicks(); err != nil || pending {
			t.Fatalf("EnableKicks with an empty ring: %t, %v", pending, err)
		}
		if got := d.availEvent(); got != d.q.LastAvail() || d.get16(word+2) != 0xabcd {
			t.Fatalf("avail_event %d, want %d; behind it %#x", got, d.q.LastAvail(), d.get16(word+2))
		}
	}
}

func TestCallSwap(t *testing.T) {
	d := newDriver(t, 8, 0, false, false)
	raw, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	other := &driver{call: dmabuf.NewFD(raw, "other call")}
	defer other.call.Close()
	d.q.SetCall(other.call)
	if err := d.q.Interrupt(); err != nil || d.interrupted() || !other.interrupted() {
		t.Error("the interrupt went to the wrong eventfd")
	}
	d.q.SetErr(d.call)
	d.push(8)
	var c Chain
	if ok, err := d.q.Next(&c); ok || !errors.Is(err, ErrRing) {
		t.Errorf("%t, %v", ok, err)
	}
	if !d.interrupted() {
		t.Error("the error eventfd was not written")
	}
	d.q.SetCall(nil)
	d.q.SetErr(nil)
	_ = d.q.Push(0, 0)
	if err := d.q.Notify(); err != nil {
		t.Errorf("no call eventfd: %v", err)
	}
	_ = other.call.Close()
	d.q.SetCall(other.call)
	if err := d.q.Interrupt(); err != nil {
		t.Errorf("closed call eventfd: %v", err)
	}
	r, w := socket(t)
	_ = r.Close()
	d.q.SetCall(w)
	if err := d.q.Interrupt(); !errors.Is(err, unix.EPIPE) {
		t.Errorf("broken call: %v", err)
	}
	_ = w.Close()
}

func socket(t *testing.T) (a, b *dmabuf.FD) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return dmabuf.NewFD(fds[0], "a"), dmabuf.NewFD(fds[1], "b")
}

// TestConcurrent runs driver and device on two goroutines that sleep on their
// eventfds, so that a missed kick or interrupt is a hang.
func TestConcurrent(t *testing.T) {
	for _, eventIdx := range []bool{false, true} {
		t.Run(fmt.Sprintf("event=%t", eventIdx), func(t *testing.T) {
			const total = 200000
			d := newDriver(t, 16, 0xfff0, eventIdx, false)
			raw, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
			if err != nil {
				t.Fatal(err)
			}
			kick := dmabuf.NewFD(raw, "kick")
			defer kick.Close()
			for i := range 16 {
				d.desc(descAt, i, bufAt+uint64(i)*16, 8, descWrite, 0)
			}
			var served atomic.Int64
			var wg sync.WaitGroup
			wg.Add(1)
			go func() {
				defer wg.Done()
				serveUntil(t, d.q, kick, &served, total)
			}()
			drive(t, d, kick, total)
			wg.Wait()
			if served.Load() != total {
				t.Errorf("%d chains served, want %d", served.Load(), total)
			}
		})
	}
}

func serveUntil(t *testing.T, q *Queue, kick *dmabuf.FD, served *atomic.Int64, total int64) {
	var c Chain
	for served.Load() < total {
		ok, err := q.Next(&c)
		if err != nil {
			t.Error(err)
			return
		}
		if ok {
			_ = q.Push(c.Head, 8)
			served.Add(1)
			continue
		}
		_ = q.Notify()
		if pending, _ := q.EnableKicks(); pending {
			_ = q.DisableKicks()
			continue
		}
		if !sleep(t, kick, "kick") {
			return
		}
		_ = q.DisableKicks()
	}
	_ = q.Notify()
}

// drive keeps the ring as full as it can and goes to sleep when nothing comes
// back, with the driver's half of the barriers.
func drive(t *testing.T, d *driver, kick *dmabuf.FD, total int) {
	avail, used := at32(d.mem[availAt:]), at32(d.mem[usedAt:])
	usedEvent, availEvent := at16(d.mem[availAt:], availHead+2*d.size), at16(d.mem[usedAt:], usedHead+usedElemSize*d.size)
	free := make([]uint16, 0, d.size)
	for i := range d.size {
		free = append(free, uint16(i))
	}
	sent, got := 0, 0
	for got < total {
		old := d.availIdx
		for len(free) > 0 && sent < total {
			head := free[len(free)-1]
			free = free[:len(free)-1]
			d.put16(availAt+availHead+2*(int(d.availIdx)%d.size), head)
			d.availIdx++
			sent++
		}
		if d.availIdx != old {
			avail.storeFence(0, d.availIdx)
			flags, _ := used.load()
			want := flags&usedNoNotify == 0
			if d.eventIdx {
				want = d.availIdx-availEvent.load()-1 < d.availIdx-old
			}
			if want {
				_ = signal(kick)
			}
		}
		if d.eventIdx {
			usedEvent.storeFence(d.lastUsed)
		}
		if _, idx := used.load(); idx == d.lastUsed {
			if !sleep(t, d.call, "interrupt") {
				return
			}
			continue
		}
		for {
			if _, idx := used.load(); idx == d.lastUsed {
				break
			}
			head, _, _ := d.pop()
			free = append(free, uint16(head))
			got++
		}
	}
}

func sleep(t *testing.T, fd *dmabuf.FD, what string) bool {
	for {
		p := []unix.PollFd{{Fd: int32(fd.Int()), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 10000)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n == 0 || err != nil {
			t.Errorf("no %s in 10 s (%v)", what, err)
			return false
		}
		var b [8]byte
		_, _ = unix.Read(fd.Int(), b[:])
		return true
	}
}

func TestNoAllocs(t *testing.T) {
	for _, indirect := range []bool{false, true} {
		d := newDriver(t, 8, 0, true, indirect)
		roundTrip := benchLoop(t, d)
		if n := testing.AllocsPerRun(1000, roundTrip); n != 0 {
			t.Errorf("indirect %t: %v allocations per chain", indirect, n)
		}
	}
}

// benchLoop returns a function that sends one request of two readable and one
// writable descriptor around the ring.
func benchLoop(t testing.TB, d *driver) func() {
	table := descAt
	if d.indirect {
		table = tableAt
		d.desc(descAt, 0, tableAt, 3*descSize, descIndirect, 0)
	}
	d.desc(table, 0, bufAt, 24, descNext, 1)
	d.desc(table, 1, bufAt+4096, 64, descNext, 2)
	d.desc(table, 2, bufAt+8192, 24, descWrite, 0)
	var c Chain
	buf := make([]byte, 88)
	resp := bytes.Repeat([]byte{7}, 24)
	return func() {
		d.push(0)
		d.setUsedEvent(d.lastUsed)
		if ok, err := d.q.Next(&c); !ok || err != nil {
			t.Fatal(ok, err)
		}
		if n, err := c.ReadAt(buf, 0); n != len(buf) || err != nil {
			t.Fatal(n, err)
		}
		if _, err := c.Write(resp); err != nil {
			t.Fatal(err)
		}
		if err := d.q.Push(c.Head, c.Written()); err != nil {
			t.Fatal(err)
		}
		if err := d.q.Notify(); err != nil {
			t.Fatal(err)
		}
		if pending, err := d.q.EnableKicks(); pending || err != nil {
			t.Fatal(pending, err)
		}
		if _, n, ok := d.pop(); !ok || n != 24 {
			t.Fatal("no used entry")
		}
	}
}

func BenchmarkRoundTrip(b *testing.B) {
	for _, indirect := range []bool{false, true} {
		b.Run(fmt.Sprintf("indirect=%t", indirect), func(b *testing.B) {
			f := benchLoop(b, newDriver(b, 256, 0, true, indirect))
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
}
