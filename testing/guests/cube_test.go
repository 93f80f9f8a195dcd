package guests_test

import (
	"testing"
	"time"
)

// startCube runs kmscube until the driver goes or endCube. It ends when its
// standard input can be read, so it gets one that never can.
const startCube = loadDriver + `[ -e /tmp/nothing ] || { mkfifo /tmp/nothing; sleep 100000 >/tmp/nothing & }
kmscube -D /dev/dri/card0 -c 1000000 </tmp/nothing >/tmp/kmscube.log 2>&1 &
echo $! >/tmp/kmscube.pid
`

const endCube = "kill $(cat /tmp/kmscube.pid); while kill -0 $(cat /tmp/kmscube.pid) 2>/dev/null; do sleep 0.05; done\n"

// cubeTime is what kmscube may take to show itself under emulation.
const cubeTime = 60 * time.Second

// turns waits until n more frames of 3D have reached the display.
func (r *rig) turns(t *testing.T, n uint64) {
	t.Helper()
	before := r.status()
	eventually(t, cubeTime, "frames of kmscube", func() bool {
		st := r.status()
		return frames(st) >= frames(before)+n && st.Submits > before.Submits
	}, func() string { return r.try("cat /tmp/kmscube.log; dmesg | tail -n 20") })
}
