# Two commands on a fresh clone do everything: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check
JOBS ?= 2
CROSS := aarch64-linux-gnu-g++

.PHONY: demo test install build lint pytest cpp arm sanitize fuzz docs clean

demo: install  ## compress, check, time and report on the shipped digits network
	PATH="$(abspath $(BIN)):$$PATH" examples/demo.sh demo-out

test: install lint cpp arm pytest  ## everything CI runs

# torch is pinned and installed first and alone: a resolver left to choose may take a build with gigabytes of GPU libraries.
$(VENV)/.installed: pyproject.toml Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q "torch==2.13.0"
	$(PIP) install -q "scikit-build-core>=0.11" "nanobind>=2.4" "cmake>=3.24" "ninja>=1.11"
	$(PIP) install -q --no-build-isolation -e ".[torch,bench,test,dev]"
	touch $@

install: $(VENV)/.installed build

# One build folder for the package and the C++ tests: pip's editable install configures it, Python finds the module in src/.
build: $(VENV)/.installed
	@test -f build/dev/build.ninja || $(PIP) install -q --no-build-isolation --no-deps -e .
	$(BIN)/cmake --build build/dev -j $(JOBS) --target _runtime

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

pytest: build
	$(BIN)/python -m pytest -n $(JOBS) -q

cpp: build  ## C++ tests on this CPU
	$(BIN)/cmake -DNETSUKE_TESTS=ON build/dev > /dev/null
	$(BIN)/cmake --build build/dev -j $(JOBS)
	$(BIN)/ctest --test-dir build/dev --output-on-failure --no-tests=error -j $(JOBS)

arm: $(VENV)/.installed  ## the same tests, cross-compiled and run under emulation
	@if command -v $(CROSS) >/dev/null && command -v qemu-aarch64 >/dev/null; then \
	  $(BIN)/cmake -S . -B build/arm -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DNETSUKE_TESTS=ON \
	    -DCMAKE_TOOLCHAIN_FILE=$(abspath cmake/aarch64-linux-gnu.cmake) && \
	  $(BIN)/cmake --build build/arm -j $(JOBS) && \
	  $(BIN)/ctest --test-dir build/arm --output-on-failure --no-tests=error -j $(JOBS); \
	else echo "SKIPPED: ARM tests need $(CROSS) and qemu-aarch64 (Debian: g++-aarch64-linux-gnu qemu-user)"; fi

sanitize: $(VENV)/.installed  ## C++ tests and 2,000 fuzzed files under address and undefined-behaviour sanitizers
	$(BIN)/cmake -S . -B build/sanitize -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DNETSUKE_TESTS=ON \
	  -DNETSUKE_SANITIZE=address,undefined
	$(BIN)/cmake --build build/sanitize -j $(JOBS)
	$(BIN)/ctest --test-dir build/sanitize --output-on-failure --no-tests=error -j $(JOBS)

clean:
	rm -rf build build-* $(VENV) demo-out src/netsuke/*.so
