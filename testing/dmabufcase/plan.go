package dmabufcase

import "io"

// Where a stage runs.
const (
	HostVM    = "vm"    // a machine with dma-bufs
	HostPlain = "plain" // one without
)

// Outputs of weston: they leave a margin of an even width around the largest
// window, and windows of odd sizes half a pixel out of the middle.
const (
	smallW, smallH = 673, 503
	largeW, largeH = 1936, 1090
)

var (
	smallSizes = []size{{1, 1}, {3, 5}, {63, 47}, {641, 479}}
	largeSizes = []size{{1279, 799}, {1920, 1080}}
	vga        = size{641, 479}
)

// Plan returns the stages of a host. dir, binary and log are as in Config.
func Plan(host, binary, dir string, log io.Writer) []Config {
	base := Config{Host: host, Binary: binary, Dir: dir, Log: log, Tier: "dmabuf", Tier2D: "shm", Renderer: "gl"}
	if host == HostPlain {
		base.Tier, base.Renderer = "copy", "pixman"
	}
	small, large, second := base, base, base
	small.Name, small.W, small.H = host+"-small", smallW, smallH
	small.Warm, small.Cases = warmUp(), smallCases()
	large.Name, large.W, large.H = host+"-large", largeW, largeH
	large.Warm = pictures(formats3D[2:], largeSizes[1:])
	large.Cases = largeCases()
	second.W, second.H = smallW, smallH
	second.Warm, second.Cases = warmUp(), shortCases()
	if host == HostPlain {
		second.Name, second.Renderer = host+"-gl", "gl"
	} else {
		// vgem has no GL driver, so virglrenderer draws with llvmpipe on it, too; but
		// 2D resources get buffers of its own, which are dma-bufs.
		second.Name, second.Node, second.Tier2D = host+"-card0", "/dev/dri/card0", "dmabuf"
	}
	return []Config{small, large, second}
}

// warmUp is one of each kind, so that nothing that is made once counts as a leak.
func warmUp() []Case {
	f := &formats3D[0]
	return []Case{
		pictureCase(f, vga, false), pictureCase(&formats3D[1], vga, true), flipCase(f, vga, false, 4),
		unrefCase(f, vga, 6), cropCase(f, vga, false), case2D(&formats2D[0], vga), pointerCase(f, vga, false),
	}
}

func smallCases() []Case {
	f := formats3D
	cases := pictures(f, smallSizes)
	for i := range formats2D {
		cases = append(cases, case2D(&formats2D[i], smallSizes[2]))
	}
	return append(cases,
		flipCase(&f[1], vga, false, 200),
		flipCase(&f[2], size{63, 47}, true, 40),
		floodCase(&f[0], vga, 200),
		unrefCase(&f[1], vga, 40),
		cropCase(&f[0], vga, false),
		cropCase(&f[3], vga, true),
		case2D(&f[1], vga),
		pointerCase(&f[1], vga, false),
		pointerCase(&f[2], vga, true),
	)
}

// largeCases has each format once, so that every size comes both ways up.
func largeCases() []Case {
	var cases []Case
	for i := range formats3D {
		for j, sz := range largeSizes {
			cases = append(cases, pictureCase(&formats3D[i], sz, (i+j)%2 == 1))
		}
	}
	return cases
}

// shortCases are for a second way through the same code.
func shortCases() []Case {
	f := formats3D
	cases := []Case{}
	for i := range f {
		cases = append(cases, pictureCase(&f[i], vga, i%2 == 1), pictureCase(&f[i], size{63, 47}, i%2 == 0))
	}
	return append(cases,
		flipCase(&f[1], vga, false, 30),
		unrefCase(&f[0], vga, 10),
		cropCase(&f[1], vga, true),
		case2D(&f[1], vga),
	)
}
