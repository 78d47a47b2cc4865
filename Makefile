# Each target does all of its own set-up and may be run again at any time.
SWIFT_FLAGS := -c release

.PHONY: serve test build bench contract soak fuzz tsan debug-test format clean

# The default model is fetched once; `graft pull` lists the others.
serve: build
	.build/release/graft pull smollm2-135m-instruct
	.build/release/graft serve

build:
	Scripts/setup
	swift build $(SWIFT_FLAGS) --product graft

# The tests run one after another: several drive sockets, child processes or all cores, and would starve each other.
test:
	Scripts/setup tests
	Scripts/check-house
	swift build $(SWIFT_FLAGS) --build-tests
	.build/release/graft pull smollm2-135m-instruct
	Scripts/end-to-end
	swift test $(SWIFT_FLAGS) --skip-build --no-parallel

# Graft against llama.cpp, alternating on this machine. The first run builds the peer (about 12 minutes).
bench: build
	.build/release/graft pull smollm2-135m-instruct
	python3 Benchmarks/peers.py --model Models/SmolLM2-135M-Instruct.Q4_1.gguf --graft .build/release/graft

# Requests made from /openapi.json, right ones and wrong ones, against a server (some minutes): no status from 500 up, none that is not described.
contract: build
	Scripts/setup contract
	Scripts/contract

# A thousand publishes and deletes of adapters over four names while sixteen streams run (a few minutes). Fails on an error, on an answer that is
# not wholly one version's, on gaps between tokens, and on memory that is not given back. Then twenty kills of a server that tunes: nothing that was
# acknowledged may be missing, and every job must come to the same bytes (a few minutes more). Then a thousand slow clients, a minute of four times too
# much work, and ten thousand mixed requests, a third of them given up, after which nothing may be left (half an hour); their cache is small, so that it
# has its whole size early on.
soak: build
	Scripts/setup tests
	.build/release/graft pull smollm2-135m-instruct
	Scripts/with-server sh -c '.venv/bin/python Tests/EndToEnd/swap_soak.py "$$GRAFT_BASE_URL" --pid "$$GRAFT_SERVER_PID" --strict'
	.venv/bin/python Tests/EndToEnd/kill_soak.py --kills 20
	.venv/bin/python Tests/EndToEnd/load_test.py --strict
	GRAFT_ENGINE_CACHE_MEGABYTES=256 Scripts/with-server sh -c '.venv/bin/python Tests/EndToEnd/mixed_soak.py "$$GRAFT_BASE_URL" --pid "$$GRAFT_SERVER_PID" --strict'

# Every parser of what strangers send, each for SECONDS: `SECONDS=600 make fuzz`, `TARGET=http make fuzz`. The first run builds all of the server with
# the address sanitizer (some minutes). `make test` runs the kept inputs.
SECONDS ?= 60
fuzz:
	Scripts/setup
	Scripts/fuzz --seconds $(SECONDS) $(addprefix --target ,$(TARGET))

# The tests of the HTTP server, the event loop and the executors under the thread sanitizer.
tsan:
	Scripts/setup
	Scripts/tsan

# Preconditions everywhere and assertions alive.
debug-test:
	Scripts/setup
	swift test --scratch-path .build-debug --no-parallel

format:
	swift format --in-place --recursive Package.swift Sources Tests

clean:
	rm -rf .build .build-debug .build-fuzz .build-tsan
