package edid

// timing is a video mode in full.
type timing struct {
	clock10k                     uint32 // pixel clock, units of 10 kHz
	hActive, hBlank              uint32 // pixels
	hFront, hSync                uint32
	vActive, vBlank              uint32 // lines
	vFront, vSync                uint32
	hSyncPositive, vSyncPositive bool
}

// Blanking of CVT with reduced blanking, version 1 (VESA CVT 1.2, table 4).
const (
	rbHBlank      = 160 // pixels
	rbHFront      = 48
	rbHSync       = 32
	rbVFront      = 3 // lines
	rbVBackMin    = 6
	rbVBlankMinNS = 460_000
)

// minClock10k is the slowest pixel clock that readers believe, in units of
// 10 kHz.
const minClock10k = 1000

// reducedBlanking returns a mode with the blanking that CVT prescribes. Two
// things differ from the letter of CVT: the width is not rounded to 8 pixels,
// because the picture has exactly the size asked for, and the pixel clock is
// rounded to 10 kHz instead of down to 250 kHz, which keeps the refresh rate of
// small modes. Very small ones get more blank lines, so that their clock is not
// below minClock10k.
func reducedBlanking(w, h, milliHz uint32) timing {
	sync := verticalSync(w, h)
	frameNS := uint64(1e12) / uint64(milliHz)
	// The estimated time of a line is (frame - 460 µs) / h; the blanking is as
	// many whole lines as exceed 460 µs.
	blank := uint32(rbVBlankMinNS*uint64(h)/(frameNS-rbVBlankMinNS)) + 1
	blank = max(blank, rbVFront+sync+rbVBackMin)
	hTotal := uint64(w + rbHBlank)
	minPixels := minClock10k * uint64(10_000_000) / uint64(milliHz)
	if hTotal*uint64(h+blank) < minPixels {
		blank = uint32(minPixels/hTotal) + 1 - h
	}
	pixels := hTotal * uint64(h+blank)
	return timing{
		clock10k: uint32((pixels*uint64(milliHz) + 5_000_000) / 10_000_000),
		hActive:  w, hBlank: rbHBlank, hFront: rbHFront, hSync: rbHSync,
		vActive: h, vBlank: blank, vFront: rbVFront, vSync: sync,
		hSyncPositive: true, // the polarities that mark reduced blanking
	}
}

// verticalSync returns CVT's width of the vertical sync for a picture's shape,
// in lines.
func verticalSync(w, h uint32) uint32 {
	switch {
	case w*3 == h*4:
		return 4
	case w*9 == h*16:
		return 5
	case w*10 == h*16:
		return 6
	case w*4 == h*5, w*9 == h*15:
		return 7
	}
	return 10
}

// fitsBase reports whether an 18-byte descriptor can hold t: 12 bits for each
// length and 16 for the clock.
func (t timing) fitsBase() bool {
	return t.clock10k <= 0xffff && t.hActive <= 0xfff && t.vActive <= 0xfff && t.vBlank <= 0xfff
}

func (t timing) hTotal() uint32 { return t.hActive + t.hBlank }
func (t timing) vTotal() uint32 { return t.vActive + t.vBlank }

// lineHz is the horizontal frequency in hertz.
func (t timing) lineHz() uint64 { return uint64(t.clock10k) * 10_000 / uint64(t.hTotal()) }

// milliHz is the refresh rate in thousandths of a hertz.
func (t timing) milliHz() uint64 {
	return uint64(t.clock10k) * 10_000_000 / (uint64(t.hTotal()) * uint64(t.vTotal()))
}

// standard is a mode that the standard or established timings name, with VESA
// DMT's frequencies at 60 Hz.
type standard struct {
	w, h     uint32
	lineHz   uint64
	clock10k uint32
	aspect   byte // bits 7:6 of a standard timing: 0 16:10, 1 4:3, 2 5:4, 3 16:9
}

// established modes have bits of their own in bytes 35 and 36.
var established = []struct {
	standard
	at  int
	bit byte
}{
	{standard{640, 480, 31469, 2518, 1}, 35, 1 << 5},
	{standard{800, 600, 37879, 4000, 1}, 35, 1 << 0},
	{standard{1024, 768, 48363, 6500, 1}, 36, 1 << 3},
}

// standards are offered largest first, eight at most.
var standards = []standard{
	{2048, 1152, 72000, 16200, 3},
	{1920, 1200, 74556, 19325, 0},
	{1920, 1080, 67500, 14850, 3},
	{1680, 1050, 65290, 14625, 0},
	{1600, 1200, 75000, 16200, 1},
	{1600, 900, 60000, 10800, 3},
	{1440, 900, 55935, 10650, 0},
	{1280, 1024, 63981, 10800, 2},
	{1280, 960, 60000, 10800, 1},
	{1280, 800, 49702, 8350, 0},
	{1280, 720, 45000, 7425, 3},
}
