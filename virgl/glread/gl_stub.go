//go:build !cgo || !egl

package glread

import "fmt"

// New returns ErrNotSupported in this build.
func New(_ string) (Reader, error) {
	return nil, fmt.Errorf("glread: %w: built without cgo or without the tag egl", ErrNotSupported)
}
