#!/bin/bash
# Builds gpubroker_VERSION_ARCH.deb, for hosts, and gpubroker-guest_VERSION_ARCH.deb, for
# virtual machines, in the folder $1 (out/deb), without root and without network once Go's
# module cache is filled, and says where they are:
#
#   [VERSION=1.2.3] [MAINTAINER='Name <mail>'] packaging/deb/build.sh [FOLDER]
#
# Two builds of one commit are the same, byte for byte.
set -euo pipefail
cd "$(dirname "$0")/../.."
out=$(mkdir -p "${1:-out/deb}" && cd "${1:-out/deb}" && pwd)

export CGO_ENABLED=0 GOTOOLCHAIN=${GOTOOLCHAIN:-auto}
if [ -z "${SOURCE_DATE_EPOCH:-}" ]; then
	SOURCE_DATE_EPOCH=$(git log -1 --format=%ct 2>/dev/null || date +%s)
fi
export SOURCE_DATE_EPOCH
commit=$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
version=${VERSION:-0~git$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y%m%d.%H%M%S).$commit}
maintainer=${MAINTAINER:-gpubroker <gpubroker@localhost.localdomain>}
arch=$(dpkg --print-architecture)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
umask 022
flags=(-trimpath -ldflags "-s -w -X main.release=$version")

# begin NAME [FLAG]...: the program, built with these flags of go build, with its manual and
# completions, which it writes itself
begin() {
	package=$1 root=$work/$1 doc=$work/$1/usr/share/doc/$1
	shift
	go build "${flags[@]}" "$@" -o "$root/usr/bin/$package" "./cmd/$package"
	go build "${flags[@]}" "$@" -tags docs -o "$work/$package-docs" "./cmd/$package"
	"$work/$package-docs" man "$root/usr/share/man/man1"
	complete bash "usr/share/bash-completion/completions/$package"
	complete zsh "usr/share/zsh/vendor-completions/_$package"
	complete fish "usr/share/fish/vendor_completions.d/$package.fish"
}
complete() { mkdir -p "$root/$(dirname "$2")" && "$root/usr/bin/$package" completion "$1" >"$root/$2"; }

# finish CONTROL: licences, changelog and control data; then the package
finish() {
	copyright >"$doc/copyright"
	licences
	cat >"$work/changelog" <<-EOT
		$package ($version) unstable; urgency=medium

		  * Built from commit $commit.

		 -- $maintainer  $(date -u -R -d "@$SOURCE_DATE_EPOCH")
	EOT
	gzip -9n <"$work/changelog" >"$doc/changelog.gz"
	gzip -9n "$root"/usr/share/man/man1/*
	mkdir -p "$root/DEBIAN"
	local size deb=$out/${package}_${version}_$arch.deb
	size=$(du -k -s --apparent-size "$root/usr" | cut -f1)
	sed -e "s/@VERSION@/$version/; s/@ARCH@/$arch/; s/@SIZE@/$size/" -e "s/@MAINTAINER@/$maintainer/" "packaging/deb/$1" >"$root/DEBIAN/control"
	(cd "$root" && find usr -type f -print0 | sort -z | xargs -0 md5sum >DEBIAN/md5sums)
	find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
	dpkg-deb --root-owner-group -Zxz --build "$root" "$deb" >/dev/null
	echo "$deb"
}

copyright() {
	echo "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/"
	echo "Upstream-Name: gpubroker"
	echo "Comment: The licences of the Go modules in the program follow as files of their own,"
	echo " in the folder licences."
	echo
	echo "Files: *"
	echo "Copyright: $(date -u -d "@$SOURCE_DATE_EPOCH" +%Y) the authors of gpubroker"
	if [ -e LICENSE ]; then
		echo "License: gpubroker"
		sed 's/^[[:space:]]*$/./; s/^/ /' LICENSE
	else
		echo "License: unpublished"
		echo " The checkout that this package was built from states no licence."
	fi
}

# licences copies those of every module that is linked into the program
licences() {
	go list -deps -f '{{with .Module}}{{if not .Main}}{{.Path}} {{.Dir}}{{end}}{{end}}' "./cmd/$package" | sort -u |
		while read -r module dir; do
			file=$(find "$dir" -maxdepth 1 -iname 'licen[sc]e*' -o -maxdepth 1 -iname 'copying*' | sort | head -n 1)
			[ -n "$file" ] || { echo "build.sh: $module has no licence file" >&2; exit 1; }
			install -D -m 644 "$file" "$doc/licences/$(tr / _ <<<"$module")"
		done
}

begin gpubroker -buildmode=pie
install -D -m 644 -t "$root/usr/lib/systemd/user" packaging/systemd/*
install -D -m 644 -t "$root/usr/share/qemu/vhost-user" packaging/40-gpubroker.json
install -D -m 644 -t "$doc" README.md docs/*.md
install -D -m 644 packaging/README.md "$doc/packaging.md"
install -D -m 644 docs/kmscube.png "$doc/docs/kmscube.png"
sed -i 's#(docs/\([a-z]*\.md\))#(\1)#; s#(packaging/README\.md)#(packaging.md)#' "$doc/README.md"
finish control.in

# Static, so that it runs in any guest.
begin gpubroker-guest
install -D -m 644 -t "$root/usr/lib/systemd/user" packaging/guest/*
install -D -m 644 -t "$doc" docs/guest.md
mkdir -p "$root/usr/share/lintian/overrides"
echo "gpubroker-guest: statically-linked-binary [usr/bin/gpubroker-guest]" >"$root/usr/share/lintian/overrides/gpubroker-guest"
finish guest.control.in
