# Process 1 of a lab guest: finishes the mounts, says hello on the virtio port
# and runs the scripts that the host names, one after the other.
#
# From the host: run FILE NONCE
# To the host:   lab-agent-hello BOOT-ID, then for every run the script's
#                output and a line NONCE EXIT-CODE
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 TERM=linux XDG_RUNTIME_DIR=/run/user/0

mkdir -p /dev/pts /dev/shm
mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
mount -t tmpfs -o mode=1777 shm /dev/shm
mount -t tmpfs -o mode=0755 run /run
mount -t tmpfs -o mode=1777 tmp /tmp
mkdir -p -m 0700 /run/user/0
hostname lab
ip link set lo up 2>/dev/null || busybox ip link set lo up

port=
for _ in $(seq 100); do
	for name in /sys/class/virtio-ports/*/name; do
		[ "$(cat "$name" 2>/dev/null)" = lab.agent ] && port=/dev/$(basename "$(dirname "$name")")
	done
	[ -n "$port" ] && break
	sleep 0.1
done
[ -n "$port" ] || { echo "lab: no agent port"; exec busybox poweroff -f; }

exec 3<>"$port"
printf 'lab-agent-hello %s\n' "$(cat /proc/sys/kernel/random/boot_id)" >&3
while read -r verb file nonce <&3; do
	[ "$verb" = run ] || continue
	cd /root
	setsid bash "/lab/share/$file" </dev/null >&3 2>&1 3<&-
	printf '\n%s %d\n' "$nonce" "$?" >&3
done
echo "lab: the agent port was closed"
exec busybox poweroff -f
