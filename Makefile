# The front door. CMake decides how to build, tools/bootstrap what the machine needs; this file only calls them.
# Variables come from the command line, as in: make serve MODEL=/path/model.gguf ARGS="-c 8192".

MODEL ?= models/demo-2m-f16.gguf
PORT  ?= 8080
JOBS  ?= $(shell nproc)
T     ?= tests

# Not from the environment, where some shells keep the machine's own name under HOST.
HOST := 127.0.0.1

# Of make load; from the command line only, as the environment may use such names for other things.
PROFILE  := mix
USERS    := 8
DURATION := 60s
SEED     := 1
STOCK    :=
HOST_URL :=

export PYTHON ?= python3

# The two build trees compile the same sources. Paths relative to the repository let ccache share the results;
# staging has just written the headers, and ccache would otherwise distrust files that are so young.
export CCACHE_BASEDIR ?= $(CURDIR)
export CCACHE_SLOPPINESS ?= include_file_ctime,include_file_mtime

BIN := .venv/bin
RUN := $(BIN)/python -m

CONFIGURE = $(BIN)/cmake -G Ninja -U '*Python3_*' \
    -DCMAKE_MAKE_PROGRAM="$(CURDIR)/$(BIN)/ninja" -DPython3_EXECUTABLE="$(CURDIR)/$(BIN)/python" \
    -DATLAS_SOURCE_CACHE="$(CURDIR)/build-cache" -DCMAKE_BUILD_TYPE=Release -DLLAMA_USE_PREBUILT_UI=OFF \
    $(if $(UI),-DLLAMA_BUILD_UI=$(UI))

# Options given now configure again; without them a build tree keeps those it has.
RECONFIGURE := $(if $(CMAKE_ARGS)$(UI),FORCE)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help serve build build-stock build-tests test test-archs test-upstream test-faults test-fleet test-clients test-rpc test-without-python docs-api sanitize sanitize-server check format bench bench-copies bench-embedding bench-hooks bench-metrics bench-resume bench-routing load soak profile fuzz build-fuzz train-demo-model evaluate-demo-model lock clean distclean require-model FORCE

help: ## print this
	@echo 'ATLAS for llama-server'
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-19s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  MODEL=FILE HOST=ADDRESS PORT=NUMBER ARGS="..."   for serve; ARGS go to llama-server as they are'
	@echo '  CMAKE_ARGS="-DGGML_CUDA=ON" UI=ON JOBS=NUMBER    for builds; UI=ON builds the web UI and needs npm'
	@echo '  PROFILE=NAME USERS=NUMBER DURATION=60s SEED=TEXT  for load; and STOCK=1, or HOST_URL=URL of a running server'
	@echo '  T="tests/unit -k name"                           for test: what pytest runs'
	@echo '  SECONDS=60                                       for fuzz: how long each target runs'
	@echo '  PYTHON=/path/to/python3                          the Python to embed, 3.11 or newer'

serve: export MODEL := $(MODEL)
serve: export HOST := $(HOST)
serve: export PORT := $(PORT)
serve: export VIRTUAL_ENV := $(CURDIR)/.venv
serve: export ATLAS_MEMORY_PATH ?= ./atlas_memory
serve: require-model build ## build what is out of date and serve a model on http://127.0.0.1:8080
	@exec build/bin/llama-server -m "$$MODEL" --host "$$HOST" --port "$$PORT" $(ARGS)

# Whether a file is the one that was published says the .sha256 beside it, where there is one. A damaged file still goes
# to llama-server, which names what is wrong with it.
require-model:
	@test -f "$$MODEL" || { echo "make: no model file '$$MODEL'; name one: make serve MODEL=/path/model.gguf. $(REBUILD)" >&2; exit 1; }
	@test ! -f "$$MODEL.sha256" || echo "$$(cat "$$MODEL.sha256")  $$MODEL" | sha256sum --check --status || \
	    echo "make: '$$MODEL' is damaged: '$$MODEL.sha256' has another checksum. $(REBUILD)" >&2
REBUILD := The demo model comes back by git checkout models/, or is made anew by make train-demo-model

build: build/build.ninja ## build build/bin/llama-server
	@$(BIN)/cmake --build build --target llama-server --parallel $(JOBS)

build-stock: build-stock/build.ninja ## build build-stock/bin/llama-server from the untouched upstream source
	@$(BIN)/cmake --build build-stock --target llama-server --parallel $(JOBS)

# the library's own tests, and the program that writes the models of tests/archs
build-tests: build/build.ninja
	@$(BIN)/cmake --build build --target atlas-unit-test atlas-memory-test atlas-tier-test atlas-runtime-test atlas-llama-test atlas-api atlas-api-test atlas-abi atlas-examples atlas-bench-pool atlas-bench-sequences test-llama-archs --parallel $(JOBS)

build/build.ninja: .venv/.atlas-base $(RECONFIGURE)
	$(CONFIGURE) -B build -DLLAMA_ATLAS=ON $(CMAKE_ARGS)

build-stock/build.ninja: .venv/.atlas-base $(RECONFIGURE)
	$(CONFIGURE) -B build-stock -DATLAS_STOCK=ON $(CMAKE_ARGS)

# bootstrap leaves the file as it is when the environment is up to date.
.venv/.atlas-base: FORCE
	@tools/bootstrap

.venv/.atlas-dev: FORCE
	@tools/bootstrap --dev

test: .venv/.atlas-dev build build-tests build-stock ## build and run the tests
	@$(RUN) pytest $(T)

test-archs: .venv/.atlas-dev build build-tests build-stock ## restore the state of every architecture of llama.cpp
	@rm -f build-reports/matrix.json
	@$(RUN) pytest tests/archs --all-archs

test-upstream: .venv/.atlas-dev build build-stock ## run llama.cpp's own server tests on stock and on ATLAS; takes a while
	@$(BIN)/python tests/upstream/compare.py $(ARGS)

check: .venv/.atlas-dev ## lint and type-check everything, change nothing
	$(RUN) ruff check
	$(RUN) ruff format --check
	$(RUN) mypy
	$(CLANG_FORMAT) --dry-run -Werror {} +
	$(BIN)/python tools/rooms
	$(BIN)/python tools/facts --check
	$(BIN)/python tools/hooks --check
	$(BIN)/python tools/patches lint
	$(BIN)/python tools/patches verify

format: .venv/.atlas-dev ## format Python and C++, and write what Python shares with C++ and the reference of hooks
	$(BIN)/python tools/facts
	$(BIN)/python tools/hooks
	$(RUN) ruff check --fix
	$(RUN) ruff format
	$(CLANG_FORMAT) -i {} +

CLANG_FORMAT := find native -type f \( -name '*.[ch]' -o -name '*.[ch]pp' \) -exec $(BIN)/clang-format

bench: .venv/.atlas-dev build build-stock ## compare the two builds; TRACE=FILE adds hit rates, ARGS=--quick is quicker
	@$(RUN) load.benchmark $(if $(TRACE),--trace "$(TRACE)") $(ARGS)

bench-resume: .venv/.atlas-dev build build-stock ## measure resuming and stalls with a 1B model; ARGS="..." likewise
	@$(RUN) load.resume $(ARGS)

bench-copies: .venv/.atlas-dev build-rpc/build.ninja ## measure what copying state to and from a device costs; ARGS="..." likewise
	@$(BIN)/cmake --build build-rpc --target $(RPC_TARGETS) --parallel $(JOBS)
	@ATLAS_TEST_BINARY="$(CURDIR)/build-rpc/bin/llama-server" $(RUN) load.copies $(ARGS)

bench-metrics: build/build.ninja ## measure what recording a number costs; needs Google Benchmark (libbenchmark-dev)
	@$(BIN)/cmake --build build --target atlas-bench-metrics
	@build/bin/atlas-bench-metrics $(ARGS)

bench-embedding: .venv/.atlas-dev build ## measure ATLAS inside another program: HTTP, sequences, the pool; ARGS="..." likewise
	@$(BIN)/cmake --build build --target atlas-bench-pool atlas-bench-sequences atlas-example-http --parallel $(JOBS)
	@$(RUN) load.embedding $(ARGS)

bench-routing: .venv/.atlas-dev build ## measure what servers behind routers reuse; ARGS="..." likewise; docs/fleet.md has the routers
	@$(RUN) load.routing $(ARGS)

bench-hooks: .venv/.atlas-dev build ## measure what plugins' hooks add to requests; ARGS="..." likewise
	@$(RUN) load.hooks $(ARGS)

load: .venv/.atlas-dev $(if $(HOST_URL),,$(if $(STOCK),build-stock,build)) ## put load on a server by profile; ARGS="..." likewise
	@$(BIN)/python load/run.py --profile "$(PROFILE)" --users "$(USERS)" --duration "$(DURATION)" --seed "$(SEED)" \
	    $(if $(HOST_URL),--url "$(HOST_URL)",--model "$(MODEL)" $(if $(STOCK),--stock)) $(ARGS)

soak: .venv/.atlas-dev build ## run clients for MINUTES=30 and say whether memory, threads and latency stay flat
	@$(RUN) load.soak $(if $(MINUTES),--minutes "$(MINUTES)") $(ARGS)

profile: .venv/.atlas-dev build build-stock ## draw flame graphs of both builds under load; needs perf
	@$(RUN) load.cpu_profile $(ARGS)

docs-api: .venv/.atlas-base ## write the reference of the C++ API to build/docs-api/html; needs doxygen
	@command -v doxygen >/dev/null || { echo "make: no doxygen: apt-get install doxygen" >&2; exit 1; }
	@mkdir -p build && PATH="$(CURDIR)/$(BIN):$$PATH" doxygen docs/Doxyfile

# A tree of its own.
build-without-python/build.ninja: .venv/.atlas-base $(RECONFIGURE)
	$(CONFIGURE) -B build-without-python -DLLAMA_ATLAS=ON -DATLAS_PYTHON=OFF $(CMAKE_ARGS)

test-without-python: .venv/.atlas-dev build-without-python/build.ninja ## build with -DATLAS_PYTHON=OFF and test that
	@$(BIN)/cmake --build build-without-python --target llama-server atlas-unit-test atlas-api atlas-api-test atlas-examples --parallel $(JOBS)
	@ATLAS_TEST_BINARY="$(CURDIR)/build-without-python/bin/llama-server" $(RUN) pytest tests/without_python.py $(ARGS)

# A tree of its own, too.
RPC_TARGETS := llama-server ggml-rpc-server test-llama-archs
build-rpc/build.ninja: .venv/.atlas-base $(RECONFIGURE)
	$(CONFIGURE) -B build-rpc -DLLAMA_ATLAS=ON -DGGML_RPC=ON $(CMAKE_ARGS)

test-rpc: .venv/.atlas-dev build-stock build-rpc/build.ninja ## build with -DGGML_RPC=ON, and test with all layers in another process
	@$(BIN)/cmake --build build-rpc --target $(RPC_TARGETS) --parallel $(JOBS)
	@ATLAS_TEST_BINARY="$(CURDIR)/build-rpc/bin/llama-server" $(RUN) pytest tests/archs/rpc.py $(ARGS)

test-faults: .venv/.atlas-dev build build-stock ## kill servers hundreds of times, and all else that can go wrong
	@$(RUN) pytest tests/faults --all-kills

# Programs of others, in an environment of their own.
build-clients/.made: tests/clients/requirements.txt
	@command -v npm >/dev/null || { echo "make: no npm: apt-get install nodejs npm" >&2; exit 1; }
	@$(PYTHON) -m venv build-clients/venv && build-clients/venv/bin/pip install --quiet -r tests/clients/requirements.txt
	@npm install --silent --no-fund --no-audit --prefix build-clients openai@7.59.0 && touch $@

test-clients: .venv/.atlas-dev build build-clients/.made ## let programs of others talk to the server: SDKs, agents, LangChain; needs npm
	@$(RUN) pytest tests/clients/clients.py $(ARGS)

test-fleet: .venv/.atlas-dev build ## let three servers share 200 sessions, and two sessions while all fails for MINUTES=2
	@ATLAS_TEST_FLEET_SESSIONS=200 ATLAS_TEST_FLEET_S="$$(( $(or $(MINUTES),2) * 60 ))" \
	    $(RUN) pytest --timeout 7200 tests/server/test_shared_stores.py::test_turns_at_random_servers tests/server/test_shared_sessions_soak.py

# Trees of their own, for all that is to be compiled with a sanitizer: build-sanitize/thread and build-sanitize/address.
SANITIZERS       := thread address
SANITIZE_thread  := thread
SANITIZE_address := address,undefined
build-sanitize/%/build.ninja: .venv/.atlas-base $(RECONFIGURE)
	@command -v $(CLANG)++ >/dev/null || { echo "make: no $(CLANG)++: apt-get install clang libclang-rt-dev" >&2; exit 1; }
	$(CONFIGURE) -B build-sanitize/$* -DLLAMA_ATLAS=ON -DATLAS_SANITIZE=$(SANITIZE_$*) -DGGML_OPENMP=OFF \
	    -DCMAKE_C_COMPILER=$(CLANG) -DCMAKE_CXX_COMPILER=$(CLANG)++ $(CMAKE_ARGS)

# Whatever is reported ends the program that reports it. Leaks are looked for, too; in a whole server they are not, as it ends
# without destructors. Nor are globals there that two libraries have, as of cpp-httplib. And whichever thread
# starts Python gets a stack for signals of faulthandler's, which AddressSanitizer would take for its own when the thread ends.
# Of a library's variables of a thread, clang 14 guesses the size by what lies before them: LeakSanitizer itself crashed on that.
sanitize sanitize-server: export ATLAS_TEST_MODEL := $(CURDIR)/models/demo-2m-f16.gguf
sanitize: export TSAN_OPTIONS  := halt_on_error=1
sanitize: export UBSAN_OPTIONS := halt_on_error=1:print_stacktrace=1
sanitize: .venv/.atlas-dev $(SANITIZERS:%=build-sanitize/%/build.ninja) ## run the library's own tests under clang's sanitizers
	@for tree in $(SANITIZERS); do \
	    $(BIN)/cmake --build build-sanitize/$$tree --target atlas-unit-test atlas-memory-test atlas-tier-test --parallel $(JOBS) && \
	    native/core/tests/run-cases build-sanitize/$$tree/bin/atlas-unit-test $(JOBS) && \
	    native/core/tests/run-cases build-sanitize/$$tree/bin/atlas-memory-test $(JOBS) && \
	    ATLAS_TEST_TIER_PROGRAM="$(CURDIR)/build-sanitize/$$tree/bin/atlas-tier-test" $(RUN) pytest tests/tiers || exit; done

sanitize-server: .venv/.atlas-dev $(SANITIZERS:%=build-sanitize/%/build.ninja) build-stock ## run tests on a server and a library compiled with clang's sanitizers; takes half an hour, and the compilation
	@for tree in $(SANITIZERS); do \
	    $(BIN)/cmake --build build-sanitize/$$tree --target llama-server atlas-llama-test atlas-api-test --parallel $(JOBS) && \
	    TSAN_OPTIONS=halt_on_error=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	    native/core/tests/run-cases build-sanitize/$$tree/bin/atlas-llama-test $(JOBS) && \
	    TSAN_OPTIONS=halt_on_error=1:history_size=4:report_thread_leaks=0:suppressions=$(CURDIR)/tests/sanitizers/upstream.supp \
	    ASAN_OPTIONS=detect_odr_violation=0:use_sigaltstack=0:intercept_tls_get_addr=0:fast_unwind_on_malloc=0 LSAN_OPTIONS=suppressions=$(CURDIR)/tests/sanitizers/python.supp \
	    UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	    native/core/tests/run-cases build-sanitize/$$tree/bin/atlas-api-test $(JOBS) && \
	    $(RUN) tests.sanitizers build-sanitize/$$tree $(ARGS) || exit; done

# A build tree of its own, as libFuzzer comes with clang only. Tests make it: it must leave .venv alone.
CLANG   ?= clang
SECONDS ?= 60
FUZZ = -max_total_time=$(SECONDS) -artifact_prefix=build-fuzz/ $(if $(SEED),-seed=$(SEED))
build-fuzz:
	@command -v $(CLANG)++ >/dev/null || { echo "make: no $(CLANG)++: apt-get install clang libclang-rt-dev" >&2; exit 1; }
	@$(BIN)/cmake -G Ninja -S native/core/fuzz -B build-fuzz -DCMAKE_MAKE_PROGRAM="$(CURDIR)/$(BIN)/ninja" \
	    -DCMAKE_C_COMPILER=$(CLANG) -DCMAKE_CXX_COMPILER=$(CLANG)++ \
	    -DATLAS_VENDOR="$(CURDIR)/build/llama.cpp-source/vendor" -DATLAS_TOMLPLUSPLUS_INCLUDE="$(CURDIR)/build/tomlplusplus" \
	    -DATLAS_LIBVALKEY="$(CURDIR)/build/libvalkey" >/dev/null
	@$(BIN)/cmake --build build-fuzz --parallel $(JOBS)

# What is found to reach further is kept in build-fuzz/found.
fuzz: .venv/.atlas-dev build/build.ninja build-fuzz ## look for input that breaks the parsers, SECONDS=60 for each; SEED=1 chooses where chance begins
	@for target in request-fields entry-file entry-directory resp-replies sealed-value compressed-value; do mkdir -p build-fuzz/found/$$target; \
	    build-fuzz/fuzz-$$target $(FUZZ) build-fuzz/found/$$target native/core/fuzz/corpus/$$target || exit; done
	@$(BIN)/python -c 'import atheris' 2>/dev/null || $(BIN)/pip install --quiet 'atheris>=3'
	@for target in body path rows; do mkdir -p build-fuzz/found/$$target; \
	    $(RUN) tests.fuzz $$target $(FUZZ) build-fuzz/found/$$target tests/fuzz/corpus/$$target \
	    || exit; done

train-demo-model: .venv/.atlas-dev ## make the demo model anew, an hour; needs PyTorch; ARGS="--output FILE" keeps the old one
	@PYTHONPATH=tools $(RUN) demo_model.training $(ARGS)

evaluate-demo-model: .venv/.atlas-dev build ## print how well the demo model recalls; ARGS="--share 0.1 FILE" likewise
	@PYTHONPATH=tools $(RUN) demo_model.evaluation $(ARGS)

# Run on the oldest supported Python, so that the versions chosen suit all of them.
PIP_COMPILE = build-lock/bin/pip-compile --quiet --upgrade --generate-hashes --allow-unsafe --strip-extras \
    --no-emit-index-url --no-emit-find-links --no-annotate --resolver=backtracking
lock: export CUSTOM_COMPILE_COMMAND := make lock
lock: ## choose new versions of all dependencies and write requirements/
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11) and "make lock needs Python 3.11")'
	$(PYTHON) -m venv build-lock
	build-lock/bin/python -m pip install --quiet pip-tools==7.6.2
	$(PIP_COMPILE) --extra build --extra cli -o requirements/base.txt pyproject.toml
	$(PIP_COMPILE) --extra bearer --extra bench --extra build --extra cli --extra dev --extra events --extra load --extra tracing -c requirements/base.txt -o requirements/dev.txt pyproject.toml

clean: ## remove the build trees; keep .venv and downloads
	rm -rf build build-stock build-without-python build-rpc build-fuzz build-sanitize build-lock build-clients build-reports

distclean: clean ## remove all that make wrote, save ./atlas_memory, which is yours
	rm -rf .venv build-cache *.egg-info .hypothesis load-reports .mypy_cache .pytest_cache .ruff_cache
