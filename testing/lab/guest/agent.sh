# Process 1 of a lab guest: finishes the mounts, says hello on the virtio port
# and runs the scripts that the host names, one after the other.
#
# From the host: run FILE NONCE
# To the host:   lab-agent-hello BOOT-ID, then for every run the script's
#                output and a line NONCE EXIT-CODE
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 TERM=linux XDG_RUNTIME_DIR=/run/user/0
bb=/lab/busybox

$bb mkdir -p /dev/pts /dev/shm
$bb mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
$bb mount -t tmpfs -o mode=1777 shm /dev/shm
$bb mount -t tmpfs -o mode=0755 run /run
$bb mount -t tmpfs -o mode=1777 tmp /tmp
$bb mkdir -p /run/user
$bb mkdir -m 0700 /run/user/0
$bb hostname lab
$bb ip link set lo up

port=
tries=0
while [ -z "$port" ]; do
	for dir in /sys/class/virtio-ports/*; do
		[ -e "$dir/name" ] && read -r name <"$dir/name" && [ "$name" = lab.agent ] && port=/dev/${dir##*/}
	done
	[ -n "$port" ] && break
	tries=$((tries + 1))
	[ $tries -lt 600 ] || { echo "lab: no agent port"; exec $bb poweroff -f; }
	$bb sleep 0.1
done

exec 3<>"$port"
read -r boot_id </proc/sys/kernel/random/boot_id
echo "lab-agent-hello $boot_id" >&3
while read -r verb file nonce <&3; do
	[ "$verb" = run ] || continue
	cd /root
	setsid bash "/lab/share/$file" </dev/null >&3 2>&1 3<&-
	printf '\n%s %d\n' "$nonce" "$?" >&3
done
echo "lab: the agent port was closed"
exec $bb poweroff -f
