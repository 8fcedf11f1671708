GO      ?= go
BIN     := bin/pixels-mcp
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -X main.version=$(VERSION)

.DEFAULT_GOAL := build
.PHONY: build setup demo test test-times test-setup lint bench clean-incus install

# The programs of instances are embedded, and name the images by their content: the same source must give the same bytes.
STATIC := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -buildid="

build:
	$(STATIC) -o internal/guestbin/program/pixels-init ./cmd/pixels-init
	$(STATIC) -o internal/guestbin/program/pixels-gateway ./cmd/pixels-gateway
	$(GO) build -trimpath -ldflags "$(LDFLAGS)" -o $(BIN) ./cmd/pixels-mcp

# Everything sandboxes need on this machine; what is there already is left alone.
setup: build
	$(BIN) setup

# Sets up what is missing and does the main job for real.
demo: build
	$(BIN) demo

lint: build
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "gofmt these files:"; echo "$$out"; exit 1; }
	$(GO) vet ./...

# The tests run on real Incus: setup brings one up where none runs, and from then on its absence is a failure. Packages
# take turns, for they share it, and no answer comes from the test cache, which knows nothing of Incus. The limit is
# against hanging, on slow machines too.
TESTS := PIXELS_TEST_INCUS=1 $(GO) run ./internal/testreport -skips internal/testreport/skips.txt
ALL   := -race -count=1 -p 1 -timeout 45m ./...

test: test-setup
	$(TESTS) -- $(ALL)

# The same, and where the time goes: the slowest tests, each with the sleeps in reach.
test-times: test-setup
	$(TESTS) -slowest 40 -sleeps -- $(ALL)

test-setup: lint
	scripts/inspector.sh
	scripts/chromium.sh
	$(BIN) setup --systemd

# Measures speed as a ratio to raw Incus in the same run; nothing is asserted.
bench: build
	$(BIN) setup --systemd
	PIXELS_BENCH=1 $(GO) test -count=1 -timeout 25m -run TestBenchmark ./incus -v
	$(GO) test -count=1 -run TestAThousandRequestsAreShown -v ./internal/web
	$(GO) test -run xxx -bench . ./policy

# Removes all that carries our keys, and nothing else.
clean-incus: build
	$(BIN) clean --all

install: build
	$(GO) install -trimpath -ldflags "$(LDFLAGS)" ./cmd/pixels-mcp
