#!/bin/bash
# Builds the lab root, unless one made by the same recipe is already in place:
#
#	$LAB/root             Debian trixie with parts of trixie-backports
#	$LAB/root/opt/qemu-10 trixie's own QEMU, run with the root's libraries
#	$LAB/root/lab         recipe (hash), vmlinuz, kernel (release), modules/, versions
#
# The tree is built beside its place and renamed into it, under a lock.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
lab=${GPUBROKER_LAB:-${XDG_CACHE_HOME:-$HOME/.cache}/gpubroker/lab}
root=$lab/root
mkdir -p "$lab"

# Go's lab.Find computes the same hash over the same files, by the same order.
recipe=$(cd "$here" && for f in build.sh hook.sh modules.txt packages.txt pins; do
	sha256sum "$f"
done | sha256sum | cut -d' ' -f1)

current() { [ "$(cat "$root/lab/recipe" 2>/dev/null)" = "$recipe" ]; }

current && exit 0
exec 9>"$lab/lock"
flock -n 9 || { echo "lab: another build is running, waiting" >&2; flock 9; }
current && exit 0

as_root=()
[ "$(id -u)" = 0 ] || as_root=(sudo --)

new=$lab/new
"${as_root[@]}" rm -rf "$new" "$lab/old"
mkdir "$new"
cp "$here/pins" "$new/pins"

# The mirror is the one this machine's own Debian packages come from.
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
	grep -m1 '/debian/*$' || true)
mirror=${mirror:-http://deb.debian.org/debian}
proxies=()
while read -r line; do
	proxies+=("--aptopt=$line")
done < <(apt-config dump | grep -iE '^Acquire::[a-z]+::Proxy[^ ]* "[^"]+";' || true)

packages=$(sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$here/packages.txt" | paste -sd,)
echo "lab: building the root in $lab (about 1 GB, one to five minutes)" >&2
start=$SECONDS
"${as_root[@]}" mmdebstrap --quiet --mode=root --variant=apt --architectures=amd64 \
	--aptopt='Acquire::Check-Valid-Until "false"' \
	--aptopt='Acquire::Languages "none"' \
	--aptopt='APT::Install-Recommends "false"' \
	--aptopt="Dir::Etc::Preferences \"$new/pins\"" \
	"${proxies[@]}" \
	--dpkgopt=force-unsafe-io \
	--dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-exclude=/usr/share/info/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' \
	--include="$packages" \
	--customize-hook="bash '$here/hook.sh' \"\$1\" '$here/modules.txt' '$recipe'" \
	trixie "$new/root" \
	"deb $mirror trixie main" "deb $mirror trixie-backports main" >"$lab/build.log" 2>&1 || {
	tail -n 30 "$lab/build.log" >&2
	echo "lab: the build failed; the whole log is $lab/build.log" >&2
	exit 1
}

if [ -e "$root" ]; then "${as_root[@]}" mv "$root" "$lab/old"; fi
"${as_root[@]}" mv "$new/root" "$root"
"${as_root[@]}" rm -rf "$lab/old" "$new"
echo "lab: built in $((SECONDS - start)) s: $(paste -sd, "$root/lab/versions" | sed 's/,/, /g')" >&2
