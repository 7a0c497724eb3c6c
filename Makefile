# What the project does for a person, and what CI calls. Go and make are all
# that has to be there; make tools installs the linter and the test runner.

GO      ?= go
BIN     := bin
TOOLS   := $(CURDIR)/$(BIN)/tools
export CGO_ENABLED := 0

GOLANGCI_LINT := v2.15.0
GOTESTSUM     := v1.13.0

.PHONY: all build image testbed test race lint bench fuzz flakes ci tools generate clean

all: build

# One static binary.
build:
	$(GO) build -trimpath -o $(BIN)/ ./cmd/...

# A container image of the whole testbed, gauntlet:latest: one stripped binary and
# nothing else. What its container needs, and why, is printed.
image:
	$(GO) build -trimpath -ldflags "-s -w" -o $(BIN)/image/ ./cmd/gauntlet
	$(BIN)/image/gauntlet image

# The seed suite: login, search and a call behind every kind of box, each judged
# from the wire.
testbed: build
	$(BIN)/gauntlet run

# All tests, on real sockets in namespaces of their own. Needs root or user
# namespaces.
test: $(TOOLS)/gotestsum
	$(TOOLS)/gotestsum --format pkgname-and-test-fails -- -count=1 -timeout 40m ./...

race: $(TOOLS)/gotestsum
	CGO_ENABLED=1 $(TOOLS)/gotestsum --format pkgname-and-test-fails -- -race -count=1 -timeout 40m ./...

lint: $(TOOLS)/golangci-lint
	$(TOOLS)/golangci-lint run
	$(GO) mod tidy -diff

# Speed and memory, as ratios measured in one run.
bench:
	$(GO) test -run '^$$' -bench . -benchtime 1x -timeout 30m ./middlebox
	$(GO) test -run '^$$' -bench . -benchtime 1s ./topo ./topo/pump
	$(GO) test -run '^$$' -bench 'Forward|Start|Idle' -benchtime 1x ./lab/capture
	$(GO) test -run '^$$' -bench . -benchtime 15x ./lab/callsetup
	$(GO) test -run '^$$' -bench . -benchtime 5x ./lab/certify
	$(GO) test -run '^$$' -bench . -benchtime 1s ./nodes/media ./nodes/relay
	$(GO) test -run '^$$' -bench 'Memory|Containers' -benchtime 1x -timeout 30m ./tests
	$(GO) test -run '^$$' -bench RelayFails -benchtime 5x -timeout 30m ./tests

# Every fuzz target, FUZZTIME each.
FUZZTIME ?= 10s
fuzz:
	@set -e; for f in $$(grep -rl --include='*_test.go' '^func Fuzz' . | xargs -n1 dirname | sort -u); do \
	  for t in $$(grep -h -o '^func Fuzz[A-Za-z0-9_]*' $$f/*_test.go | cut -d' ' -f2); do \
	    echo "$$f $$t"; $(GO) test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) $$f; \
	  done; done

# The suite RUNS times in a row; a check that passes sometimes fails.
RUNS ?= 50
flakes: build
	$(BIN)/gauntlet run --repeat $(RUNS)

# What is generated from the code: the JSON Schema of a scenario file, and
# compose/compose.yaml out of compose/overlay.yaml.
generate:
	$(GO) test ./tests -run 'TestSchema|TestComposeFile' -update

ci:
	.ci/run

tools: $(TOOLS)/gotestsum $(TOOLS)/golangci-lint

$(TOOLS)/gotestsum:
	GOBIN=$(TOOLS) $(GO) install gotest.tools/gotestsum@$(GOTESTSUM)

$(TOOLS)/golangci-lint:
	GOBIN=$(TOOLS) $(GO) install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT)

clean:
	rm -rf $(BIN)
