#!/bin/bash
# Run by mmdebstrap on the installed tree, with apt set up for it: adds what is
# not installed as a package. Arguments: the tree, modules.txt, the recipe's hash.
set -euo pipefail
root=$1 modules=$2 recipe=$3

export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG
debs=$root/tmp/debs
mkdir -p "$root/lab/modules" "$debs"
cd "$debs"

# The kernel is unpacked, not installed: its postinst would build an initrd.
image=$(apt-cache depends linux-image-amd64 | awk '/Depends: linux-image-/ {print $2; exit}')
kernel=${image#linux-image-}
apt-get -o APT::Sandbox::User=root download "linux-"{base,binary,modules}"-$kernel" \
	{qemu-system-x86,qemu-system-common,qemu-system-data,qemu-system-gui,qemu-system-modules-opengl}/trixie
for deb in linux-*.deb; do
	dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --keep-directory-symlink --exclude './usr/share/*'
done
mv "$root/usr/lib/modules/$kernel/vmlinuz" "$root/lab/vmlinuz"
echo "$kernel" >"$root/lab/kernel"
chroot "$root" depmod "$kernel"

# The initrd's modules, uncompressed and numbered in load order.
n=10
sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$modules" | while read -r name; do
	chroot "$root" modprobe -S "$kernel" --show-depends "$name" | awk '$1 == "insmod" {print $2}'
done | awk '!seen[$0]++' | while read -r ko; do
	base=$(basename "$ko"); base=${base%%.*}
	case $ko in
	*.xz) chroot "$root" busybox unxz -c "$ko" ;;
	*) cat "$root$ko" ;;
	esac >"$root/lab/modules/$n-$base.ko"
	n=$((n + 1))
done

for deb in qemu-system-*.deb; do dpkg-deb -x "$deb" "$root/opt/qemu-10"; done
rm -rf "$root/opt/qemu-10/usr/share/doc" "$root/opt/qemu-10/usr/share/man"

# Mount points and names that a guest and a sandbox expect. QEMU may serve the
# tree as an ordinary user, so /root must be open to all.
mkdir -p "$root/lab/share" "$root/lab/ro"
chmod 0755 "$root/root"
echo lab >"$root/etc/hostname"
: >"$root/etc/machine-id"

version() { dpkg-query --admindir="$root/var/lib/dpkg" -W -f '${Version}' "$1"; }
{
	echo "kernel $kernel"
	echo "qemu $(version qemu-system-x86)"
	echo "qemu-10 $(dpkg-deb -f qemu-system-x86_*.deb Version)"
	echo "mesa $(version libegl-mesa0)"
	echo "virglrenderer $(version libvirglrenderer1)"
	echo "weston $(version weston)"
	echo "sway $(version sway)"
} >"$root/lab/versions"
rm -rf "$debs"
echo "$recipe" >"$root/lab/recipe"
