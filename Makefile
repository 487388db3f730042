# Shortcuts for the README's commands; everything itself is a Mage target or a Go test.
# One set of build flags for everything: the lab, its tests and the source bundle then share one build cache. `go tool mage`
# sets the same (internal/mage).
export CGO_ENABLED := 0
export GOFLAGS := -trimpath -tags=disable_pgv -gcflags=all=-dwarf=false
GO ?= go
MAGE := $(GO) tool mage
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ambientlab
BUNDLE ?= $(CACHE)/source-bundle
# What a source bundle can hold of the add-ons; the others have no Go-only build.
E2E = SM_BUNDLE=$(BUNDLE) SM_ADDONS=prometheus,jaeger $(GO) test -count=1 -timeout=60m -v
# The newest Envoy that building a bundle has fetched: a test of the node proxy runs it.
ENVOY = $$(ls -t $(CACHE)/source/envoy/*/envoy | head -n 1)

.DEFAULT_GOAL := help
.PHONY: help lab test lint mutants race bundle e2e e2e-full bench

help: ## show this
	@grep -E '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z0-9-]+):.*## /  make \1\t/' | expand -t 20

lab: ## run the whole lab: kind where Docker answers, the embedded control plane otherwise
	SM_PROVIDER=$(or $(SM_PROVIDER),auto) $(MAGE) sm:lab

# Nested modules with code of the project's own; the others only pin programs.
NESTED := internal/nodeproxy internal/podrunner internal/source/nodenet internal/source/nodeimage/criseed

test: ## unit, golden and integration tests; needs Go alone
	$(GO) vet ./...
	$(GO) test -timeout=50m ./...
	for module in $(NESTED); do (cd $$module && $(GO) vet ./... && $(GO) test ./...) || exit 1; done
	@echo "The tests on packets ran if the following is ok, and were skipped otherwise:"
	@SM_PROVIDER=embedded $(MAGE) sm:doctor 2>/dev/null | grep 'pods can run'

TOOL = $(GO) tool -modfile=internal/tools/go.mod
GO_FILES = $(patsubst ./%,%,$(shell find . -name '*.go' -not -path './.*'))
# $(call none,COMMAND) fails if COMMAND prints the names of files, and prints them.
none = @files="$$($(1))" && test -z "$$files" || { echo "$$files"; exit 1; }

lint: ## formatting (gofumpt), import order (gci), line width of 120 (revive), vet, staticcheck and actionlint
	$(call none,$(TOOL) gofumpt -l magefile.go specs targets internal)
	$(call none,$(TOOL) gci list -s standard -s default -s 'prefix(ambientlab)' $(GO_FILES))
	@$(TOOL) revive -config internal/tools/revive.toml $(GO_FILES)
	$(GO) vet ./...
	$(TOOL) staticcheck ./...
	$(TOOL) actionlint

mutants: ## how many mutants of the packages of pure logic the tests notice: 90 % or more (long)
	internal/tools/mutants.sh

race: ## the tests under the race detector; needs a C compiler
	CGO_ENABLED=1 $(GO) test -race -timeout=60m ./...
	for module in $(NESTED); do (cd $$module && CGO_ENABLED=1 $(GO) test -race ./...) || exit 1; done

bundle: ## build every image from Go modules and Debian packages (Linux, root)
	$(MAGE) sm:bundle -from=source -to=$(BUNDLE)

e2e: bundle ## the lab on a real kind cluster, from the source bundle (Linux, root, Docker)
	cd internal/nodeproxy && NODEPROXY_ENVOY=$(ENVOY) $(GO) test -count=1 -tags=e2e,disable_pgv ./...
	$(GO) test -count=1 -tags=e2e,disable_pgv ./internal/dump ./internal/probe/report ./internal/workshop
	$(GO) test -count=1 -timeout=30m -tags=e2e,disable_pgv -run=TestWorkshopPage -v ./internal/lab
	$(E2E) -tags=e2e,disable_pgv ./internal/e2e/...

e2e-full: e2e ## the long cases too: signals, sabotage, the node proxy, every package on its own
	for module in $(NESTED); do (cd $$module && NODEPROXY_ENVOY=$(ENVOY) $(GO) test -count=1 -tags=e2e,disable_pgv ./...) || exit 1; done
	$(E2E) -timeout=150m -p=1 -tags=e2e,e2efull,disable_pgv -skip='^TestLab$$' ./internal/...

# BENCH=-short measures everything once, which takes about a third of the time. Another bundle can be named with SM_BUNDLE.
bench: $(if $(SM_BUNDLE),,bundle) ## sm:install and the commands that it replaces, in turns; lessons, proofs, starts (Linux, Docker)
	SM_BUNDLE=$(or $(SM_BUNDLE),$(BUNDLE)) $(GO) run ./internal/bench $(BENCH)
