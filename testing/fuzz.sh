#!/bin/bash
# Runs every fuzz target of the module for a while. Argument: how long each.
set -euo pipefail
cd "$(dirname "$0")/.."
fuzztime=${1:-20s}
export CGO_ENABLED=0

# go test -list prints a package's targets, then a line that names the package.
targets=$(go test -list '^Fuzz' ./... | awk '
	/^Fuzz/ { names[n++] = $1 }
	/^(ok|\?)/ { for (i = 0; i < n; i++) print $2, names[i]; n = 0 }')
if [ -z "$targets" ]; then
	echo "fuzz: no fuzz targets found" >&2
	exit 1
fi
while read -r package name; do
	echo "fuzz: $name in $package for $fuzztime"
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$fuzztime" -fuzzminimizetime 20x "$package"
done <<<"$targets"
