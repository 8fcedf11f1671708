GO      ?= go
BIN     := bin/pixels-mcp
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null)
LDFLAGS := -X main.version=$(VERSION)

.DEFAULT_GOAL := build
.PHONY: build clients conformance setup demo test test-fast test-long test-times test-setup test-machine test-compile lint vet bench clean-incus install

# The programs of instances are embedded, and name the images by their content: the same source must give the same bytes.
STATIC := CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=false -ldflags "-s -w -buildid="

build:
	$(STATIC) -o internal/guestbin/program/pixels-init ./cmd/pixels-init
	$(STATIC) -o internal/guestbin/program/pixels-gateway ./cmd/pixels-gateway
	$(GO) build -trimpath -ldflags "$(LDFLAGS)" -o $(BIN) ./cmd/pixels-mcp
	ln -sf pixels-mcp bin/pixels

# The command line for people and MCP clients on other systems, which a server on Linux works for.
CLIENTS := darwin-arm64 windows-amd64

clients: $(CLIENTS:%=bin/pixels-%)

bin/pixels-%: FORCE
	CGO_ENABLED=0 GOOS=$(firstword $(subst -, ,$*)) GOARCH=$(lastword $(subst -, ,$*)) \
		$(GO) build -trimpath -ldflags "-s -w $(LDFLAGS)" -o $@$(if $(findstring windows,$*),.exe) ./cmd/pixels-mcp

FORCE:

# Everything sandboxes need on this machine; what is there already is left alone.
setup: build
	$(BIN) setup

# Sets up what is missing and does the main job for real.
demo: build
	$(BIN) demo

lint: build vet

# What vetting reads must have been built once: the programs of instances are embedded.
vet:
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "gofmt these files:"; echo "$$out"; exit 1; }
	$(GO) vet ./...

# The tests run on real Incus: setup brings one up where none runs, and from then on its absence is a failure. No answer
# comes from the test cache, which knows nothing of Incus. Those of the command line, which start it hundreds of times and wait as a
# person does, come by themselves. Tests that kill incusd, or keep two cores busy, come after the others,
# beside what needs no Incus. Those with a browser come by themselves, for it drops what is under way whenever an interface of
# the machine comes or goes; one that takes from every network namespace of the machine comes last.
# The limit is against hanging, on slow machines too.
#
# SQLite (translated C) and the password hash are not ours to look for races in, and take up to twenty times as long under
# the race detector. A package with generics can't be left out so: the linker may give its copies of them to all.
REPORT := PIXELS_TEST_INCUS=1 $(GO) run ./internal/testreport -skips internal/testreport/skips.txt
NOISY  := ^TestAFullTableOfNeighbours$$
RACE   := -race $(foreach p,modernc.org/sqlite/lib golang.org/x/crypto/argon2 golang.org/x/crypto/blake2b,-gcflags=$(p)=-race=false)
ALONE  := ^(TestKilledInTurn|TestAHungIncusHangsNobody|TestIncusKilledAndRevived|TestNobodyTakesTheGatewayFromOthers)$$
INCUS  := ./incus ./internal/setup
TYPED  := ./cmd/pixels-mcp
PAGE   := ./internal/web
OTHERS  = $(filter-out $(patsubst ./%,pixels/%,$(INCUS) $(TYPED) $(PAGE)),$(shell $(GO) list ./...))
ALL     = $(RACE) -vet=off -count=1 -timeout 30m -p 2 -parallel 6 -skip '$(ALONE)|$(NOISY)' $(INCUS) \
          --then $(RACE) -vet=off -count=1 -timeout 15m -parallel 6 -skip '$(ALONE)' $(TYPED) \
          --then $(RACE) -vet=off -count=1 -timeout 15m -p 1 -run '$(ALONE)' ./incus ./cmd/pixels-mcp \
          --and $(RACE) -vet=off -count=1 -timeout 15m -p 2 $(OTHERS) \
          --then $(RACE) -vet=off -count=1 -timeout 15m $(PAGE) \
          --then $(RACE) -vet=off -count=1 -timeout 15m -run '$(NOISY)' ./incus

test: test-setup
	$(REPORT) -- $(ALL)

# The same, and where the time goes: the slowest tests, each with the sleeps in reach.
test-times: test-setup
	$(REPORT) -slowest 40 -sleeps -- $(ALL)

# The official suites of the protocol, and clients that others wrote, against the server; `make test` has most of it.
conformance: build
	scripts/conformance.sh
	scripts/agents.sh
	$(GO) test -count=1 -timeout 15m -v -run 'Conformance|TypeScript|GoSDK' ./internal/server | tee /dev/stderr | { ! grep -q -e '^ *--- SKIP' -e '^FAIL'; }

# What needs no Incus, and not the race detector either: an answer within a minute. It restarts and installs nothing.
test-fast: lint
	PIXELS_TEST_INCUS=0 $(GO) test ./...

# More rounds of the same: what races or is killed at some moment, again and again, for an hour or two.
test-long: test-setup
	PIXELS_TEST_LONG=1 $(REPORT) -- $(RACE) -count=20 -timeout 60m $(OTHERS) $(PAGE) \
		--then $(RACE) -count=4 -timeout 120m -p 1 -run 'Killed|Restore|Name|Many|Wire' ./incus ./cmd/pixels-mcp

# What the tests need: a machine that is set up, and, at the same time, the source vetted and compiled for them.
test-setup: build
	@$(MAKE) --no-print-directory -j2 -Oline test-machine test-compile

test-machine:
	$(BIN) setup --systemd
	scripts/test-tools.sh
	scripts/conformance.sh

test-compile: export GOGC = 400
test-compile: vet
	$(GO) build $(RACE) ./...
	$(MAKE) --no-print-directory clients

# Measures speed as a ratio to raw Incus in the same run; nothing is asserted.
bench: build
	$(BIN) setup --systemd
	PIXELS_BENCH=1 $(GO) test -count=1 -timeout 25m -run TestBenchmark ./incus -v
	PIXELS_BENCH=1 $(GO) test -count=1 -timeout 10m -run TestBenchmark ./cmd/pixels-mcp -v
	$(GO) test -count=1 -run TestAThousandRequestsAreShown -v ./internal/web
	$(GO) test -run xxx -bench . ./policy/...

# Removes all that carries our keys, and nothing else.
clean-incus: build
	$(BIN) clean --all

# Into /usr/local unless PREFIX says otherwise; what was built before is installed as it is, so that root need not build.
PREFIX ?= /usr/local
BINDIR := $(DESTDIR)$(PREFIX)/bin
SHARE  := $(DESTDIR)$(PREFIX)/share

install: $(if $(wildcard $(BIN)),,build)
	install -d "$(BINDIR)" "$(SHARE)/bash-completion/completions" "$(SHARE)/zsh/site-functions" "$(SHARE)/fish/vendor_completions.d"
	install -m 0755 $(BIN) "$(BINDIR)/pixels-mcp"
	ln -sf pixels-mcp "$(BINDIR)/pixels"
	"$(BINDIR)/pixels" man "$(SHARE)/man/man1"
	"$(BINDIR)/pixels" completion bash >"$(SHARE)/bash-completion/completions/pixels"
	"$(BINDIR)/pixels" completion zsh >"$(SHARE)/zsh/site-functions/_pixels"
	"$(BINDIR)/pixels" completion fish >"$(SHARE)/fish/vendor_completions.d/pixels.fish"
