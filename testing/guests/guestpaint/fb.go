package main

import (
	"fmt"
	"image/color"
	"os"
	"strconv"
	"strings"

	"github.com/gpubroker/gpubroker/testing/guests/pattern"
)

// paintFB fills /dev/fb0, whose layout sysfs tells.
func paintFB() error {
	const sysfs = "/sys/class/graphics/fb0/"
	size, err := numbers(sysfs + "virtual_size")
	if err != nil {
		return err
	}
	stride, err := numbers(sysfs + "stride")
	if err != nil {
		return err
	}
	bits, err := numbers(sysfs + "bits_per_pixel")
	if err != nil {
		return err
	}
	if len(size) != 2 || len(stride) != 1 || len(bits) != 1 || bits[0] != 32 {
		return fmt.Errorf("fb0: size %v, stride %v, %v bits per pixel: want 32 bits", size, stride, bits)
	}
	pixels := make([]byte, stride[0]*size[1])
	paint(pixels, size[0], size[1], stride[0])
	f, err := os.OpenFile("/dev/fb0", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	if _, err := f.Write(pixels); err != nil {
		_ = f.Close()
		return err
	}
	return f.Close()
}

func numbers(file string) ([]int, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var out []int
	for _, word := range strings.Split(strings.TrimSpace(string(text)), ",") {
		n, err := strconv.Atoi(word)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		out = append(out, n)
	}
	return out, nil
}

// paint draws the pattern as XRGB8888.
func paint(pixels []byte, w, h, stride int) {
	for y := range h {
		for x := range w {
			put(pixels[y*stride+4*x:], pattern.At(x, y, w, h))
		}
	}
}

// put writes a pixel as premultiplied ARGB8888.
func put(p []byte, c color.NRGBA) {
	pre := color.RGBAModel.Convert(c).(color.RGBA)
	p[0], p[1], p[2], p[3] = pre.B, pre.G, pre.R, pre.A
}
