package qemudisplay

import (
	"errors"
	"testing"

	"github.com/gpubroker/gpubroker/broker/virtiogpu"
)

// good is a correct reply.
func good(r request, payload int) []byte {
	p := finish(append(begin(nil), make([]byte, payload)...), r)
	order.PutUint32(p[4:], flagReply)
	return p
}

func TestParse(t *testing.T) {
	for _, r := range []request{reqGetProtocolFeatures, reqGetDisplayInfo, reqGetEDID, reqDMABufUpdate} {
		size, ok := replySize(r)
		if !ok {
			t.Fatalf("%v has no reply", r)
		}
		p := good(r, size)
		got, n, err := parse(p, r)
		if err != nil || n != len(p) || got.req != r || len(got.payload) != size {
			t.Errorf("%v: %d bytes, %v", r, n, err)
		}
		for cut := range p {
			if _, n, err := parse(p[:cut], r); n != 0 || err != nil {
				t.Fatalf("%v cut to %d bytes: %d, %v", r, cut, n, err)
			}
		}
		if _, _, err := parse(p, reqScanout); !errors.Is(err, ErrProtocol) {
			t.Errorf("%v taken for another: %v", r, err)
		}
	}
}

func TestRequestNames(t *testing.T) {
	for r := reqGetProtocolFeatures; r <= reqDMABufScanout2; r++ {
		if s := r.String(); s == "" || s[0] < 'A' || s[0] > 'Z' {
			t.Errorf("request %d is called %q", uint32(r), s)
		}
	}
	if request(13).String() != "request(13)" || request(0).String() != "request(0)" {
		t.Error("unknown requests have names")
	}
}

// FuzzReply feeds bytes as replies: no panic, no more taken than is there, only
// payloads of the right size, which the structs inside decode.
func FuzzReply(f *testing.F) {
	for _, r := range []request{reqGetProtocolFeatures, reqGetDisplayInfo, reqGetEDID, reqDMABufUpdate} {
		size, _ := replySize(r)
		p := good(r, size)
		f.Add(uint32(r), p)
		f.Add(uint32(r), append(p, p...))
		f.Add(uint32(r), p[:len(p)-1])
		bad := append([]byte(nil), p...)
		order.PutUint32(bad[8:], 0xffffffff)
		f.Add(uint32(r), bad)
	}
	f.Fuzz(func(t *testing.T, want uint32, p []byte) {
		for len(p) > 0 {
			r, n, err := parse(p, request(want))
			if err != nil {
				if !errors.Is(err, ErrProtocol) {
					t.Fatalf("error %v has no sentinel", err)
				}
				return
			}
			if n == 0 {
				if len(p) >= headerSize+maxReply {
					t.Fatalf("%d bytes are not enough", len(p))
				}
				return
			}
			size, ok := replySize(r.req)
			if n > len(p) || !ok || len(r.payload) != size {
				t.Fatalf("%v: took %d of %d bytes, payload %d", r.req, n, len(p), len(r.payload))
			}
			switch r.req {
			case reqGetDisplayInfo:
				var info virtiogpu.DisplayInfo
				if err := info.Decode(r.payload); err != nil {
					t.Fatal(err)
				}
				for i := range info.Modes {
					if m := modeOf(&info.Modes[i]); m.Enabled != (m.W > 0 && m.H > 0) {
						t.Fatalf("mode %+v", m)
					}
				}
			case reqGetEDID:
				var e virtiogpu.EDID
				_ = e.Decode(r.payload) // its size field may be anything
				if len(e.Bytes()) > virtiogpu.MaxEDID {
					t.Fatal("EDID of impossible size")
				}
			}
			p = p[n:]
		}
	})
}
