package link

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"testing"
)

// drain receives until the connection ends and says so in the channel.
func drain(c *Conn) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		var pix []byte
		for {
			f, err := c.Recv()
			if err != nil {
				return
			}
			var u Update
			if f.Type == TypeUpdate && u.Decode(f.Payload) == nil {
				if out, err := u.Unpack(pix); err == nil && u.Encoding != EncodingRaw {
					pix = out
				}
			}
		}
	}()
	return done
}

// BenchmarkRoundTrip is a small message there and back over a socket.
func BenchmarkRoundTrip(b *testing.B) {
	g, h := pair(b, Limits{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			f, err := h.Recv()
			if err != nil || h.WriteWayland(nil, f.Payload[4:]) != nil {
				return
			}
		}
	}()
	b.ReportAllocs()
	for b.Loop() {
		if g.WriteWayland(nil, make([]byte, 64)) != nil {
			b.Fatal("write")
		}
		if _, err := g.Recv(); err != nil {
			b.Fatal(err)
		}
	}
	g.Close()
	<-done
}

// BenchmarkWayland is frames of one size one way, over a socket and over a Mux.
func BenchmarkWayland(b *testing.B) {
	for _, size := range []int{64, 4096, 64 << 10} {
		for _, over := range []string{"socket", "mux"} {
			b.Run(fmt.Sprintf("%s/%d", over, size), func(b *testing.B) {
				x, y := streams(b, over)
				g, h := join(b, x, y, Limits{})
				done := drain(h)
				data := make([]byte, size)
				b.SetBytes(int64(size))
				b.ReportAllocs()
				for b.Loop() {
					if g.WriteWayland(nil, data) != nil {
						b.Fatal("write")
					}
				}
				g.Close()
				<-done
			})
		}
	}
}

// streams returns two ends of a socket, or of a stream in a Mux.
func streams(b *testing.B, over string) (net.Conn, net.Conn) {
	x, y := sockets(b)
	if over == "socket" {
		return x, y
	}
	got := make(chan io.ReadWriteCloser)
	served := make(chan struct{})
	ctx := b.Context()
	release := make(chan struct{})
	go func() {
		defer close(served)
		_ = ServeMux(ctx, y, 4, func(_ context.Context, s io.ReadWriteCloser) { got <- s; <-release })
	}()
	m := NewMux(ctx, x)
	b.Cleanup(func() { close(release); m.Close(); <-served })
	s, err := m.Open(timeout(b))
	if err != nil {
		b.Fatal(err)
	}
	if _, err := s.Write(nil); err != nil {
		b.Fatal(err)
	}
	return s, (<-got).(net.Conn)
}

// BenchmarkUpdate1080p is a whole picture of 1920x1080 with four bytes a pixel: one
// colour, something like a text editor, and noise.
func BenchmarkUpdate1080p(b *testing.B) {
	const w, h = 1920, 1080
	pictures := map[string]func(pix []byte){
		"plain": func([]byte) {},
		"text": func(pix []byte) {
			for y := range h {
				for x := range w {
					if y/10%2 == 0 && (x*31^y*17)%7 < 3 && x%400 < 250 {
						pix[(y*w+x)*4] = byte(x * y)
					}
				}
			}
		},
		"noise": func(pix []byte) {
			for i := range pix {
				pix[i] = byte(rand.Uint32())
			}
		},
	}
	for _, name := range []string{"plain", "text", "noise"} {
		b.Run(name, func(b *testing.B) {
			g, host := pair(b, Limits{})
			done := drain(host)
			pix := make([]byte, w*h*4)
			pictures[name](pix)
			before := g.Stats().BytesOut
			b.SetBytes(int64(len(pix)))
			b.ReportAllocs()
			for b.Loop() {
				if err := g.WriteUpdate(Update{Buffer: 1, W: w, H: h, BytesPerPixel: 4}, pix, w*4); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(g.Stats().BytesOut-before)/float64(b.N), "sent-B/op")
			g.Close()
			<-done
		})
	}
}

// BenchmarkPipe is data of a pipe, with credits, into the hands of its reader.
func BenchmarkPipe(b *testing.B) {
	g, h := pair(b, Limits{})
	gone, gone2 := drain(g), drain(h)
	r, w := osPipe(b)
	id, err := h.NamePipe(w)
	if err != nil {
		b.Fatal(err)
	}
	fd, err := g.AcceptPipe(id)
	in := file(b, fd, err)
	read := make(chan struct{})
	go func() { defer close(read); _, _ = io.Copy(io.Discard, r) }()
	data := make([]byte, 64<<10)
	b.SetBytes(int64(len(data)))
	for b.Loop() {
		if _, err := in.Write(data); err != nil {
			b.Fatal(err)
		}
	}
	in.Close()
	<-read
	g.Close()
	h.Close()
	<-gone
	<-gone2
}
