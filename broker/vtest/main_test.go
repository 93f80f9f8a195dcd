package vtest_test

import (
	"testing"

	"github.com/gpubroker/gpubroker/dmabuf/fdtest"
)

func TestMain(m *testing.M) {
	drawIfAsked()
	fdtest.Main(m)
}
