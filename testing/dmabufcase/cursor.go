package dmabufcase

// cursor is a pointer's picture, ARGB as a guest has it.
type cursor struct {
	w, h int
	pix  []byte // B, G, R, A
}

// newArrow is opaque below its diagonal and transparent above.
func newArrow(n int) *cursor {
	c := &cursor{w: n, h: n}
	for y := range n {
		for x := range n {
			if x > y {
				c.pix = append(c.pix, 0, 0, 0, 0)
				continue
			}
			c.pix = append(c.pix, byte(3*y), byte(3*x), 255, 255)
		}
	}
	return c
}

func (c *cursor) at(x, y int) rgba {
	p := c.pix[4*(y*c.w+x):]
	return rgba{p[2], p[1], p[0], p[3]}
}
