#!/bin/bash
# Runs every fuzz target of the module for a while, also those that were added since.
# Argument: how long each. What it finds interesting is kept in Go's cache, outside the
# checkout, and the next run goes on from there (go clean -fuzzcache empties it). What
# fails is written to the package's testdata/fuzz: commit it with the fix, as a
# regression test. All targets run, however many fail.
set -euo pipefail
cd "$(dirname "$0")/.."
fuzztime=${1:-20s}
export CGO_ENABLED=0
corpus=$(go env GOCACHE)/fuzz

# Before 1.27 the go command now and then calls the end of -fuzztime itself a failure,
# "context deadline exceeded" with nothing found (go.dev/issue/75804).
readonly fuzzing_go=go1.27.3
if [[ $(go env GOVERSION) =~ ^go1\.([0-9]+) ]] && [ "${BASH_REMATCH[1]}" -lt 27 ]; then
	if why=$(GOTOOLCHAIN=$fuzzing_go go version 2>&1); then
		export GOTOOLCHAIN=$fuzzing_go
	else
		echo "fuzz: $(go env GOVERSION) may report a false \"context deadline exceeded\"; $fuzzing_go cannot be had: $why" >&2
	fi
fi

# go test -list prints a package's targets, then a line that names the package.
packages=$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -r dirname | sort -u)
targets=$(go test -list '^Fuzz' $packages | awk '
	/^Fuzz/ { names[n++] = $1 }
	/^(ok|\?)/ { for (i = 0; i < n; i++) print $2, names[i]; n = 0 }')
if [ -z "$targets" ]; then
	echo "fuzz: no fuzz targets found" >&2
	exit 1
fi
failed=()
while read -r package name; do
	echo "fuzz: $name in $package for $fuzztime"
	go test -run '^$' -fuzz "^$name\$" -fuzztime "$fuzztime" -fuzzminimizetime 20x "$package" || failed+=("$package $name")
done <<<"$targets"
echo "fuzz: $(wc -l <<<"$targets") targets, corpus of $(find "$corpus" -type f 2>/dev/null | wc -l) inputs in $corpus"
if [ ${#failed[@]} -gt 0 ]; then
	printf 'fuzz: failed: %s\n' "${failed[@]}" >&2
	exit 1
fi
