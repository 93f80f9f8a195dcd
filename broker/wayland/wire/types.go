package wire

import "math"

// ID names an object on one connection. 0 is "no object". Ids below
// [ServerIDs] are allotted by the client, the others by the compositor.
type ID uint32

const (
	// DisplayID is wl_display, which exists from the start.
	DisplayID ID = 1
	// ServerIDs is the first id of those that the compositor allots.
	ServerIDs ID = 0xff000000
)

const (
	headerSize = 8
	// MaxMessage is the size in bytes of the largest message that libwayland
	// sends and, up to 1.22, accepts (WL_MAX_MESSAGE_SIZE in its sources).
	MaxMessage = 4096
	// maxSize is the most that the 16-bit size field holds, in whole words.
	maxSize = 0xfffc
	// MaxFDs is the most descriptors in one sendmsg (libwayland's MAX_FDS_OUT).
	MaxFDs = 28
	// maxQueuedFDs bounds descriptors received and not claimed by a message.
	maxQueuedFDs = 4 * MaxFDs
)

// Fixed is a signed 24.8 fixed-point number.
type Fixed int32

// FixedInt returns v as a Fixed; v must be in ±2^23.
func FixedInt(v int32) Fixed { return Fixed(v << 8) }

// FixedFloat returns the nearest Fixed to v, clamped to the type's range.
func FixedFloat(v float64) Fixed {
	v = math.Round(v * 256)
	return Fixed(min(max(v, math.MinInt32), math.MaxInt32))
}

// Float returns the number.
func (f Fixed) Float() float64 { return float64(f) / 256 }

func pad(n int) int { return (n + 3) &^ 3 }
