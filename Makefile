# Node 24 comes with the npm packages, whatever Node is installed: every script runs on it.
NODE := node_modules/.bin/node
VITEST := $(NODE) node_modules/vitest/vitest.mjs
INSTALLED := node_modules/.package-lock.json
SOURCES := $(shell find src sql -type f 2>/dev/null)

.DEFAULT_GOAL := help
.PHONY: help install run build test check format minio peers stress-verify stress-faults stress-memory fuzz bench soak schema docs image verify clean

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(INSTALLED) ## install the npm packages, Node 24 among them

$(INSTALLED): package.json package-lock.json
	npm ci --no-audit --no-fund --loglevel=error
	@touch $@

build: dist/src/main.js ## compile src/ to dist/, for the package and the image

dist/src/main.js: $(INSTALLED) tsconfig.json tsconfig.build.json $(SOURCES)
	$(NODE) scripts/build.ts
	@touch $@

run: dist/src/main.js ## start everything: embedded PostgreSQL, objects in ./data/objects
	@exec $(NODE) dist/src/main.js serve --guide

check: $(INSTALLED) ## format, lint, types; seconds
	node_modules/.bin/biome check --error-on-warnings .
	node_modules/.bin/tsc --noEmit

format: $(INSTALLED) ## format, and mend what the linter can mend
	node_modules/.bin/biome check --write .

minio: $(INSTALLED) ## get a MinIO server for the tests (about 3 minutes, once)
	$(NODE) scripts/minio.ts

peers: $(INSTALLED) ## build the Go clients of the tests (about 5 minutes, once)
	$(NODE) scripts/peers.ts

test: $(INSTALLED) build minio peers ## run every test, on real servers
	$(VITEST) run $(TESTS) $(if $(VITEST_RESULTS),--reporter=default --reporter=json --outputFile.json=$(VITEST_RESULTS))

stress-verify: $(INSTALLED) minio ## prove the promises on whole processes (MODE=stress for load)
	$(NODE) stress/verify.ts

stress-faults: $(INSTALLED) minio ## bring every fault over whole processes and reconcile (SEED=n, MODE=long)
	$(NODE) stress/faults/main.ts

stress-memory: $(INSTALLED) minio ## prove the bound on memory on whole processes (minutes; MODE=long for 10 GB)
	$(NODE) stress/memory.ts

fuzz: $(INSTALLED) ## try a million bodies against two other decoders (minutes; BODIES=10000 for fewer)
	$(NODE) stress/fuzz.ts $(if $(BODIES),--bodies $(BODIES))

bench: $(INSTALLED) minio ## measure the inner loops and whole processes
	$(NODE) stress/bench/main.ts

soak: $(INSTALLED) minio ## measure half an hour at half the peak: is memory, latency, table size flat?
	$(NODE) stress/bench/soak.ts

schema: $(INSTALLED) ## write sql/schema.sql, the schema after all migrations
	$(NODE) scripts/schema.ts

docs: $(INSTALLED) ## write the generated pages and the example environment
	$(NODE) scripts/docs.ts

verify: $(INSTALLED) ## fail when something generated is not up to date
	$(NODE) scripts/schema.ts --check
	$(NODE) scripts/docs.ts --check

image: $(INSTALLED) ## build the container image (needs a container engine)
	$(NODE) scripts/image.ts

clean: ## remove what was built
	rm -rf dist
