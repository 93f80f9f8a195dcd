//go:build !cgo || !egl

package glread

import "fmt"

// Built says whether this build has GL.
const Built = false

// New returns ErrNotSupported in this build.
func New(_ string) (Reader, error) {
	return nil, fmt.Errorf("glread: %w: built without cgo or without the tag egl", ErrNotSupported)
}
