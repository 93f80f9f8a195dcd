//go:build !cgo || !egl

package glread_test

const built = false
