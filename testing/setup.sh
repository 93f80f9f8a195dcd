#!/bin/bash
# Installs, by apt, what building and testing needs on Debian 12 or later, and Go
# where it is missing. Does nothing, quickly, when all is there.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
	git make ca-certificates
	# cgo for the race detector and for the leaf package virgl/glread
	gcc libc6-dev pkg-config libegl-dev
	# what the daemon loads at run time
	libvirglrenderer1 libegl1 libgl1-mesa-dri libgbm1
	# the lab root and its sandbox
	mmdebstrap bubblewrap debian-archive-keyring
	# second opinions on our EDIDs and our manual pages
	edid-decode man-db
)

say() { echo "setup: $*" >&2; }

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo -- "$@"
	else
		say "need root, or sudo, to run: $*"
		exit 1
	fi
}

apt_install() {
	as_root env DEBIAN_FRONTEND=noninteractive \
		apt-get -y -q --no-install-recommends -o Dpkg::Use-Pty=0 install "$@" >&2
}

apt_update() {
	as_root apt-get -q update >&2
}

missing_packages() {
	local state
	state=$(dpkg-query -W -f '${Package} ${db:Status-Status}\n' "${packages[@]}" 2>/dev/null || true)
	for name in "${packages[@]}"; do
		grep -qx "$name installed" <<<"$state" || echo "$name"
	done
}

# go_minor prints N of go1.N for the command that stands in PATH, 0 without one.
go_minor() {
	local version
	version=$(cd / && GOTOOLCHAIN=${1:-local} go version 2>/dev/null) || { echo 0; return; }
	[[ $version =~ go1\.([0-9]+) ]] && echo "${BASH_REMATCH[1]}" || echo 0
}

# Go 1.21 and later fetch the toolchain that go.mod names through the module
# proxy, if GOTOOLCHAIN lets them; Debian's default does not, the Makefile's does.
readonly want_go=$(sed -n 's/^go 1\.\([0-9]*\).*/\1/p' go.mod) fetching_go=21

add_backports() {
	local codename mirror
	codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
	apt-get indextargets --format '$(RELEASE)' 'Created-By: Packages' | grep -qx "$codename-backports" && return
	# The mirror is the one this machine's own Debian packages come from.
	mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | grep -m1 '/debian/*$' || true)
	mirror=${mirror:-http://deb.debian.org/debian}
	say "adding $codename-backports from $mirror for Go"
	as_root tee /etc/apt/sources.list.d/gpubroker-backports.sources >/dev/null <<-EOF
		Types: deb
		URIs: $mirror
		Suites: $codename-backports
		Components: main
		Check-Valid-Until: no
		Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg
	EOF
}

if ! command -v dpkg-query >/dev/null; then
	say "this is not Debian; install by hand: ${packages[*]}, Go 1.$want_go"
	exit 1
fi

mapfile -t missing < <(missing_packages)
if [ ${#missing[@]} -gt 0 ]; then
	say "installing ${missing[*]}"
	apt_update
	apt_install "${missing[@]}"
fi

if [ "$(go_minor)" -lt $fetching_go ]; then
	add_backports
	apt_update
	apt_install -t "$(. /etc/os-release && echo "$VERSION_CODENAME")-backports" golang-go
fi
if [ "$(go_minor)" -lt "$want_go" ]; then
	if ! have=$(GOTOOLCHAIN=auto go version 2>&1); then
		say "Go is too old and could not fetch the toolchain of go.mod: $have"
		exit 1
	fi
fi
