package lab

import (
	"bytes"
	"fmt"
)

// cpio builds an initrd in the "newc" format, which the kernel documents in
// Documentation/driver-api/early-userspace/buffer-format.rst.
type cpio struct {
	buf bytes.Buffer
	ino uint32
}

const (
	cpioDir  = 0o040000
	cpioFile = 0o100000
	cpioChar = 0o020000
	cpioEnd  = "TRAILER!!!"
)

func (c *cpio) dir(name string) { c.entry(name, cpioDir|0o755, nil, 0, 0) }

func (c *cpio) file(name string, perm uint32, body []byte) {
	c.entry(name, cpioFile|perm, body, 0, 0)
}

func (c *cpio) char(name string, major, minor uint32) {
	c.entry(name, cpioChar|0o600, nil, major, minor)
}

// bytes ends the archive and returns it.
func (c *cpio) bytes() []byte {
	c.entry(cpioEnd, 0, nil, 0, 0)
	return c.buf.Bytes()
}

func (c *cpio) entry(name string, mode uint32, body []byte, major, minor uint32) {
	c.ino++
	links := uint32(1)
	c.buf.WriteString("070701")
	for _, field := range []uint32{
		c.ino, mode, 0, 0, links, 0, uint32(len(body)),
		0, 0, major, minor, uint32(len(name) + 1), 0,
	} {
		fmt.Fprintf(&c.buf, "%08x", field)
	}
	c.buf.WriteString(name)
	c.buf.WriteByte(0)
	c.pad()
	c.buf.Write(body)
	c.pad()
}

func (c *cpio) pad() {
	for c.buf.Len()%4 != 0 {
		c.buf.WriteByte(0)
	}
}
