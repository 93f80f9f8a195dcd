package lab

import "fmt"

// KmscubeLog is where kmscube writes in a guest.
const KmscubeLog = "/tmp/kmscube.log"

// StartKmscube is a script that starts kmscube in a guest, on a node such as
// /dev/dri/card0, in place of one that runs. It ends when its standard input can be read,
// so it gets one that never can.
func StartKmscube(node string) string {
	return fmt.Sprintf(`[ -e /tmp/nothing ] || { mkfifo /tmp/nothing; sleep 100000 > /tmp/nothing & }
[ ! -e /tmp/kmscube.pid ] || { kill -9 $(cat /tmp/kmscube.pid); while kill -0 $(cat /tmp/kmscube.pid); do sleep 0.05; done; } 2>/dev/null
kmscube -D %s -c 1000000 < /tmp/nothing > %s 2>&1 &
echo $! > /tmp/kmscube.pid
`, node, KmscubeLog)
}

// EndKmscube is a script that ends it as a user does, and waits until it has ended.
const EndKmscube = `kill $(cat /tmp/kmscube.pid); while kill -0 $(cat /tmp/kmscube.pid) 2>/dev/null; do sleep 0.05; done
rm -f /tmp/kmscube.pid
`

// StopKmscube is a script that ends it, whatever it is in, and gives the screen back.
const StopKmscube = `kill $(cat /tmp/kmscube.pid) || true
for i in $(seq 100); do kill -0 $(cat /tmp/kmscube.pid) 2>/dev/null || break; sleep 0.1; done
kill -9 $(cat /tmp/kmscube.pid) 2>/dev/null || true
rm -f /tmp/kmscube.pid
`
