package virgltest

import "unsafe"

// aligned reports whether p starts at a multiple of 4.
func aligned(p []byte) bool { return uintptr(unsafe.Pointer(unsafe.SliceData(p)))%4 == 0 }
