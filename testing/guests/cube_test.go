package guests_test

import (
	"testing"
	"time"

	"github.com/gpubroker/gpubroker/testing/lab"
)

// startCube runs kmscube until the driver goes or lab.EndKmscube.
var startCube = loadDriver + lab.StartKmscube("/dev/dri/card0")

// cubeTime is what kmscube may take to show itself under emulation.
const cubeTime = 60 * time.Second

// turns waits until n more frames of 3D have reached the display.
func (r *rig) turns(t *testing.T, n uint64) {
	t.Helper()
	before := r.status()
	eventually(t, cubeTime, "frames of kmscube", func() bool {
		st := r.status()
		return frames(st) >= frames(before)+n && st.Submits > before.Submits
	}, func() string { return r.try("cat " + lab.KmscubeLog + "; dmesg | tail -n 20") })
}
