//go:build !amd64 && !arm64

package confine

var machine arch // no filter: nobody has tried one
