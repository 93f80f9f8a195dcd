package link

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// wire is one direction of a port: what was written stays until somebody reads it,
// whoever is at the ends.
type wire struct {
	mu    sync.Mutex
	cond  *sync.Cond
	bytes []byte
}

const wireSize = 8 << 10

func newWire() *wire {
	w := &wire{}
	w.cond = sync.NewCond(&w.mu)
	return w
}

// put leaves bytes in the wire whatever is in it already.
func (w *wire) put(b []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes = append(w.bytes, b...)
	w.cond.Broadcast()
}

// plug is an end of a port that a process has open.
type plug struct {
	in, out *wire
	mu      sync.Mutex
	closed  bool
	cut     int // if not 0: after so many more bytes written, the process dies
}

func (p *plug) isClosed() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

func (p *plug) Read(b []byte) (int, error) {
	p.in.mu.Lock()
	defer p.in.mu.Unlock()
	for len(p.in.bytes) == 0 && !p.isClosed() {
		p.in.cond.Wait()
	}
	if p.isClosed() {
		return 0, net.ErrClosed
	}
	n := copy(b, p.in.bytes)
	p.in.bytes = p.in.bytes[n:]
	p.in.cond.Broadcast()
	return n, nil
}

func (p *plug) Write(b []byte) (int, error) {
	p.out.mu.Lock()
	defer p.out.mu.Unlock()
	sent := 0
	for len(b) > 0 {
		for len(p.out.bytes) >= wireSize && !p.isClosed() {
			p.out.cond.Wait()
		}
		if p.isClosed() {
			return sent, net.ErrClosed
		}
		n := min(len(b), wireSize-len(p.out.bytes))
		p.mu.Lock()
		if p.cut > 0 && n >= p.cut {
			n = p.cut
			p.closed = true
		} else if p.cut > 0 {
			p.cut -= n
		}
		p.mu.Unlock()
		p.out.bytes = append(p.out.bytes, b[:n]...)
		p.out.cond.Broadcast()
		b, sent = b[n:], sent+n
	}
	return sent, nil
}

func (p *plug) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	for _, w := range []*wire{p.in, p.out} {
		w.mu.Lock()
		w.cond.Broadcast()
		w.mu.Unlock()
	}
	return nil
}

// dieAfter makes the process die in the middle of a message.
func (p *plug) dieAfter(n int) {
	p.mu.Lock()
	p.cut = n
	p.mu.Unlock()
}

// echo serves a stream by sending back what comes.
func echo(_ context.Context, s io.ReadWriteCloser) {
	_, _ = io.Copy(s, s)
	_ = s.Close()
}

// hostEnd runs ServeMux until stop is called.
func hostEnd(t *testing.T, p *plug, serve func(context.Context, io.ReadWriteCloser)) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = ServeMux(ctx, p, 64, serve) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// talk sends n bytes through a stream that echoes, and compares.
func talk(s net.Conn, n int) error {
	_ = s.SetDeadline(time.Now().Add(patience))
	defer s.Close()
	want := make([]byte, n)
	r := rand.NewChaCha8(sha256.Sum256([]byte{byte(n), byte(n >> 8)}))
	_, _ = r.Read(want)
	sent := make(chan error, 1)
	go func() { _, err := s.Write(want); sent <- err }()
	got := make([]byte, n)
	if _, err := io.ReadFull(s, got); err != nil {
		return errors.Join(err, s.Close(), <-sent)
	}
	if err := <-sent; err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return errors.New("not what was sent")
	}
	return nil
}

// TestMuxRestarts: either end dies in the middle of a message, and garbage is left in
// the port; a new one always gets through, and so does the one that stayed.
func TestMuxRestarts(t *testing.T) {
	up, down := newWire(), newWire()
	guestPlug := func() *plug { return &plug{in: down, out: up} }
	hostPlug := func() *plug { return &plug{in: up, out: down} }
	hp, gp := hostPlug(), guestPlug()
	stopHost := hostEnd(t, hp, echo)
	guest := NewMux(t.Context(), gp)
	defer func() { guest.Close() }()

	garbage := func(i int) []byte {
		half := control{controlHello, [nonceSize]byte{}}.append(nil)
		noise := make([]byte, 3000)
		for j := range noise {
			noise[j] = byte(rand.Uint32())
		}
		return [][]byte{nil, noise, half[:20], append(noise, 0, 0, 0, 1, 0, 0), {escape}, half, make([]byte, 5000)}[i%7]
	}
	for i := range 24 {
		// The guest may not know yet that the host has died: then the stream ends soon,
		// and the next is better.
		for ctx := timeout(t); ; {
			s, err := guest.Open(ctx)
			if err != nil {
				t.Fatalf("round %d: %v", i, err)
			}
			if err = talk(s, 100<<10); err == nil {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("round %d: %v", i, err)
			}
		}
		// Somebody is in the middle of something large when it happens.
		busy, err := guest.Open(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		sent := make(chan struct{})
		go func() { defer close(sent); _, _ = busy.Write(make([]byte, 1<<20)) }()
		drained := make(chan struct{})
		go func() { defer close(drained); _, _ = io.Copy(io.Discard, busy) }()
		dies := gp
		if i%2 == 0 {
			dies = hp
		}
		dies.dieAfter(1 + rand.IntN(60000))
		for ctx := timeout(t); !dies.isClosed(); time.Sleep(time.Millisecond) {
			if ctx.Err() != nil {
				t.Fatal("it does not die")
			}
		}
		if i%2 == 0 {
			stopHost()
			up.put(garbage(i / 2))
			down.put(garbage(i/2 + 3))
			hp = hostPlug()
			stopHost = hostEnd(t, hp, echo)
		} else {
			guest.Close()
			up.put(garbage(i / 2))
			down.put(garbage(i/2 + 3))
			gp = guestPlug()
			guest = NewMux(t.Context(), gp)
		}
		<-sent
		_ = busy.Close()
		<-drained
	}
}

// TestMuxOneDoesNotRead: 32 clients on one port; those that nobody reads, at either
// end, hold up nobody else.
func TestMuxOneDoesNotRead(t *testing.T) {
	up, down := newWire(), newWire()
	stuck := make(chan struct{})
	hostEnd(t, &plug{in: up, out: down}, func(ctx context.Context, s io.ReadWriteCloser) {
		var what [1]byte
		if _, err := io.ReadFull(s, what[:]); err != nil {
			return
		}
		switch what[0] {
		case 'f': // floods, and the guest does not read
			go func() { <-stuck; s.Close() }()
			_, _ = s.Write(make([]byte, 8<<20))
		case 's': // does not read
			<-stuck
			s.Close()
		default:
			echo(ctx, s)
		}
	})
	guest := NewMux(t.Context(), &plug{in: down, out: up})
	defer guest.Close()
	var wg sync.WaitGroup
	open := func(what string) net.Conn {
		s, err := guest.Open(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write([]byte(what)); err != nil {
			t.Fatal(err)
		}
		return s
	}
	flooded := open("f")
	starved := open("s")
	wg.Go(func() { _, _ = starved.Write(make([]byte, 8<<20)) })
	var talks sync.WaitGroup
	for i := range 30 {
		s := open("e")
		talks.Go(func() {
			if err := talk(s, 200<<10+i); err != nil {
				t.Errorf("client %d: %v", i, err)
			}
		})
	}
	talks.Wait()
	close(stuck)
	_ = flooded.Close()
	_ = starved.Close()
	wg.Wait()
}

// TestMuxNobodyThere: Open waits for a host and gives up when it is told to, and the
// port's end is an error.
func TestMuxNobodyThere(t *testing.T) {
	up, down := newWire(), newWire()
	p := &plug{in: down, out: up}
	guest := NewMux(t.Context(), p)
	defer guest.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := guest.Open(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("open: %v", err)
	}
	p.Close()
	<-guest.Done()
	if _, err := guest.Open(timeout(t)); !errors.Is(err, net.ErrClosed) || !errors.Is(guest.Err(), net.ErrClosed) {
		t.Errorf("open: %v, %v", err, guest.Err())
	}
}

// TestMuxStoppedGuest: a guest that takes nothing from the port, as one that is
// stopped, does not keep the host from ending.
func TestMuxStoppedGuest(t *testing.T) {
	up, down := newWire(), newWire()
	began := make(chan struct{}, 1)
	stop := hostEnd(t, &plug{in: up, out: down}, func(ctx context.Context, s io.ReadWriteCloser) {
		began <- struct{}{}
		go func() { <-ctx.Done(); s.Close() }()
		_, _ = s.Write(make([]byte, 1<<20))
	})
	p := &plug{in: down, out: up}
	guest := NewMux(t.Context(), p)
	defer guest.Close()
	if _, err := guest.Open(timeout(t)); err != nil {
		t.Fatal(err)
	}
	<-began
	p.Close() // reads no more; the wire fills up
	done := make(chan struct{})
	go func() { stop(); close(done) }()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatal("the host does not end")
	}
}

type collector struct {
	plain   []byte
	words   []control
	rubbish int
}

func (c *collector) data(b []byte)     { c.plain = append(c.plain, b...) }
func (c *collector) control(w control) { c.words = append(c.words, w) }
func (c *collector) garbage()          { c.rubbish++ }

// TestStuffing: data arrives as it was however reads cut it, and a control word is
// found behind anything.
func TestStuffing(t *testing.T) {
	gen := rapid.SliceOfN(rapid.SampledFrom([]byte{escape, 0, 'G', 'P', 1}), 0, 50)
	rapid.Check(t, func(t *rapid.T) {
		want := gen.Draw(t, "data")
		w := control{controlHello, newNonce()}
		in := w.append(stuff(nil, want))
		var c collector
		var u unstuffer
		feed := func(b []byte) {
			for len(b) > 0 {
				n := rapid.IntRange(1, len(b)).Draw(t, "n")
				u.take(bytes.Clone(b[:n]), &c)
				b = b[n:]
			}
		}
		feed(in)
		if !bytes.Equal(c.plain, want) || len(c.words) != 1 || c.words[0] != w || c.rubbish != 0 {
			t.Fatalf("data %x, want %x; words %v, garbage %d", c.plain, want, c.words, c.rubbish)
		}
		feed(gen.Draw(t, "noise")) // not stuffed
		c = collector{}
		feed(in)
		if len(c.words) != 1 || c.words[0] != w {
			t.Fatalf("after noise: words %v", c.words)
		}
	})
}

// FuzzPort: a hostile guest's bytes on a port end nothing but its session, and the
// next hello is answered.
func FuzzPort(f *testing.F) {
	hello := control{controlHello, newNonce()}.append(nil)
	f.Add(hello)
	f.Add(append(bytes.Clone(hello), 0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0))                // opens a stream
	f.Add(append(bytes.Clone(hello), 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 3, 'a', 'b', 'c')) // with data
	f.Add(append(bytes.Clone(hello), 0, 2, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7))                // ping
	f.Add(append(bytes.Clone(hello), 0, 0, 0, 1, 0, 0, 0, 1, 255, 255, 255, 255))        // giant
	f.Fuzz(func(t *testing.T, in []byte) {
		up, down := newWire(), newWire()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); _ = ServeMux(ctx, &plug{in: up, out: down}, 4, echo) }()
		defer func() { cancel(); <-done }()
		up.put(in)
		guest := NewMux(ctx, &plug{in: down, out: up})
		defer guest.Close()
		s, err := guest.Open(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := talk(s, 100); err != nil {
			t.Fatal(err)
		}
	})
}
