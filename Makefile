# On a bare Debian 12 machine `make demo` and `make test` are all that is needed:
# both install what is missing by apt and build the lab root the first time.
# Results for machines go to out/<target>/report.json.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Debian's Go is older than go.mod wants and fetches the right one, if it may.
export GOTOOLCHAIN ?= auto

STEP := out/bin/step
FUZZTIME ?= 20s

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | column -t -s $$'\t'

.PHONY: setup
setup: ## install what is missing, by apt
	@testing/setup.sh

.PHONY: lab
lab: setup ## build or refresh the lab root, outside the checkout
	@testing/lab/root/build.sh

.PHONY: demo
demo: setup lab ## boot a guest on gpubroker and show its GL programs (MODE=full: with blobs; MODE=apps: windows of its programs)
	go run ./testing/cmd/demo -mode=$(or $(MODE),classic)

.PHONY: dmabuf
dmabuf: setup lab ## real dma-bufs: everything inside a guest that has them
	go run ./testing/cmd/dmabuf

.PHONY: blobs
blobs: setup lab ## blobs from a real guest to the screen, thousands of them
	go run ./testing/cmd/blobs

.PHONY: clients
clients: setup lab ## Wayland clients of guests, their windows compared with direct runs
	go run ./testing/cmd/clients $(or $(TRANSPORTS),unix cross-domain virtio-serial)

.PHONY: piglit
piglit: setup lab ## piglit's tests as virpipe clients, on virgl_test_server and on gpubroker (fetches them by apt)
	go run ./testing/cmd/piglit $(PIGLIT)

.PHONY: test
test: setup lab $(STEP) ## lint, all tests, race detector, arm64, fuzzing, smoke, dma-bufs
	@rm -rf out/test
	@$(STEP) -report out/test/report.json lint -- $(MAKE) --no-print-directory lint
	@$(STEP) -report out/test/report.json arm64 -- $(MAKE) --no-print-directory arm64
	@$(STEP) -report out/test/report.json -test race -- env CGO_ENABLED=1 \
		go test -race -tags egl -shuffle=on ./...
	@$(STEP) -report out/test/report.json fuzz -- $(MAKE) --no-print-directory fuzz
	@$(STEP) -report out/test/report.json smoke -- $(MAKE) --no-print-directory smoke
	@$(STEP) -report out/test/report.json dmabuf -- $(MAKE) --no-print-directory dmabuf
	@$(STEP) -report out/test/report.json -test test -- env CGO_ENABLED=0 GPUBROKER_VM=1 \
		go test -p 1 -count=1 -timeout 30m -shuffle=on ./...
	@$(STEP) -report out/test/report.json -summary

.PHONY: test-full
test-full: test ## make test, and guests within a guest (add half an hour)
	@$(STEP) -report out/test-full/report.json -test nested -- env CGO_ENABLED=0 GPUBROKER_VM=1 GPUBROKER_FULL=1 \
		go test -p 1 -count=1 -timeout 60m -run Nested ./...
	go run ./testing/cmd/dmabuf -nested
	go run ./testing/cmd/demo -mode=apps -host=vm

.PHONY: smoke
smoke: setup lab ## gpubroker smoke here (shared memory) and where dma-bufs are
	go run ./testing/cmd/smoke

.PHONY: deb
deb: setup ## Debian packages (out/deb/), for the host and for guests
	@packaging/deb/build.sh

.PHONY: bench
bench: setup lab $(STEP) ## benchmarks, and peers beside us
	@rm -rf out/bench
	@$(STEP) -report out/bench/report.json -test bench -- env CGO_ENABLED=0 \
		go test -p 1 -run '^$$' -bench . -benchmem ./...
	@$(STEP) -report out/bench/report.json queue -- go run ./testing/cmd/queuebench
	@$(STEP) -report out/bench/report.json vtest -- go run ./testing/cmd/bench-vtest
	@$(STEP) -report out/bench/report.json link -- go run ./testing/cmd/linkbench
	@$(STEP) -report out/bench/report.json guest -- go run ./testing/cmd/guestbench

.PHONY: lint
lint: setup ## gofmt, vet with and without cgo, staticcheck
	@files=$$(git ls-files -co --exclude-standard '*.go' | xargs -r gofmt -l); \
	[ -z "$$files" ] || { echo "gofmt would change: $$files" >&2; exit 1; }
	CGO_ENABLED=0 go vet ./...
	CGO_ENABLED=1 go vet -tags egl ./...
	CGO_ENABLED=0 go vet -tags crashtest ./cmd/gpubroker
	CGO_ENABLED=0 go vet -tags docs ./cmd/gpubroker ./cmd/gpubroker-guest
	CGO_ENABLED=0 go tool staticcheck ./...
	CGO_ENABLED=1 go tool staticcheck -tags egl ./...

.PHONY: arm64
arm64: setup ## cross-build everything, tests included
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 go vet ./...
	GOOS=linux GOARCH=arm64 CGO_ENABLED=0 go build ./...

.PHONY: hostile
hostile: setup lab ## guests that mean harm: cases and mutated traffic (HOSTILE: flags, e.g. -recording FILE)
	go run ./testing/cmd/hostile $(HOSTILE)

.PHONY: soak
soak: setup lab ## a million resources, 10000 contexts, 600 killed compositors and workers (SOAK: flags)
	go run ./testing/cmd/soak $(SOAK)

.PHONY: crash
crash: setup lab ## a renderer that dies under a guest, and what is left then
	go run ./testing/cmd/crash

.PHONY: fuzz
fuzz: setup ## every fuzz target for FUZZTIME (20s)
	@testing/fuzz.sh $(FUZZTIME)

.PHONY: $(STEP)
$(STEP):
	@CGO_ENABLED=0 go build -o $@ ./testing/cmd/step
