# make setup | test | test-as-avx2 | test-emulated | test-sanitized | demo | bench | lint | release-check | clean. Everything is installed into .venv; nothing else is touched.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: setup test test-as-avx2 test-emulated test-sanitized demo bench lint release-check clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt hatch_build.py $(wildcard src/fewbits/kernels/native/*.* src/fewbits/kernels/native/*/*)
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[demo,dev]'
	touch $(INSTALLED)

test: setup
	$(BIN)/python -m pytest -n 2

# Every test as a machine with AVX2 and without VNNI, at full speed: CPUID answers less (benchmarks/masked_cpuid.py).
# `KIND=avx512`: with AVX-512, without VNNI. Exit code 2 where the processor does not let CPUID fault.
KIND ?= avx2
test-as-avx2: setup
	$(BIN)/python -m benchmarks.masked_cpuid --kind $(KIND) $(BIN)/python -m pytest -n 2

# The marked tests as such a machine, on any processor: Debian's qemu-user. NumPy, the definition, does without
# AVX2 there: qemu 7.2 gathers wrong numbers for it (np.maximum of strided float32).
test-emulated: setup
	NPY_DISABLE_CPU_FEATURES=X86_V3 qemu-x86_64 -cpu max $(BIN)/python -m pytest -m emulated

# Random calls of the native kernels beside NumPy, under AddressSanitizer and UndefinedBehaviorSanitizer, then under
# ThreadSanitizer. The time for the calls of each; compiling the kernels for each takes about half a minute more.
FUZZ_SECONDS ?= 30
test-sanitized: setup
	$(BIN)/python -m benchmarks.fuzz_kernels --sanitize memory --seconds $(FUZZ_SECONDS)
	$(BIN)/python -m benchmarks.fuzz_kernels --sanitize threads --seconds $(FUZZ_SECONDS)

demo: setup
	$(BIN)/fewbits demo --out build/demo

# Our kernels beside torch, ONNX Runtime and, where it is installed, OpenVINO: build/bench/bench.html.
bench: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.side_by_side

lint: setup
	$(BIN)/ruff check src tests benchmarks labs
	$(BIN)/pyright

# The wheel, in clean environments of every Python here, with and without a compiler; minutes, and downloads torch.
release-check:
	.ci/release-check

clean:
	rm -rf .venv build
