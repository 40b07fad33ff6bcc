# `make demo` and `make test` work on a fresh clone: each makes .venv and installs what it needs.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
export OMP_NUM_THREADS ?= 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1

NATIVE := libra_edge/runtime
FORMATTED = $(shell find $(NATIVE)/include $(NATIVE)/src $(NATIVE)/agent $(NATIVE)/tensorrt tests -name '*.h' -o -name '*.c' -o -name '*.cc')
HEADER_FLAGS := -Wall -Wextra -Werror -Wno-pragma-once-outside-header
DEMONSTRATIONS := runs/metaworld-train
TRAINING_SET := examples/metaworld/training
EXTRAS ?= field compile train sim rtx openvino fleet
COMPILE_RUNTIME := from libra_edge.runtime.libraries import native_library; native_library('x86_64-linux-gnu', '2.35')
RENDERER_PACKAGES := libosmesa6 libegl1 libgl1 libgl1-mesa-dri libegl-mesa0

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-long test-extras test-kill lint format bench bench-quantize fault-catalogue mutants evaluate demo-checkpoint demo-policy bench-real-time training-set docs system

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.dev ## everything for development, in .venv

demo: $(VENV)/.demo ## compile the shipped checkpoint, run it in the simulator
	$(BIN)/python examples/metaworld/demo.py

test: $(VENV)/.dev ## all tests but the long ones
	$(BIN)/python -m pytest -m "not long" $(PYTEST_ARGS)

test-long: $(VENV)/.dev ## the tests that take minutes
	$(BIN)/python -m pytest -m long $(PYTEST_ARGS)

test-extras: $(VENV)/.dev ## every extra alone, installed from the wheel into an empty environment
	$(BIN)/python -m tests.packaging.extras $(EXTRAS) $(addprefix --python ,$(PYTHONS))

lint: $(VENV)/.dev ## ruff, mypy, clang-format, native build without warnings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy libra_edge cli
	$(if $(FORMATTED),$(BIN)/clang-format --dry-run -Werror $(FORMATTED))
	$(foreach language,c c++,$(BIN)/python -m ziglang $(if $(filter c,$(language)),cc -std=c11,c++ -std=c++20) $(HEADER_FLAGS) -x $(language) \
	  -c $(NATIVE)/include/libra_edge.h -o $(VENV)/header.o &&) true
	$(BIN)/python -c "from pathlib import Path; from libra_edge.runtime.build import build_agent, build_library; \
	  build_library(Path('$(VENV)/native')); build_agent(Path('$(VENV)/native'))"

format: $(VENV)/.dev ## rewrite sources in the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(if $(FORMATTED),$(BIN)/clang-format -i $(FORMATTED))

bench: $(VENV)/.dev ## measure speed, write docs/measurements
	$(BIN)/python benchmarks/refiner.py

bench-quantize: $(VENV)/.dev ## what int8 gains on a CPU, write docs/measurements
	$(BIN)/python benchmarks/quantize.py

test-kill: $(VENV)/.dev ## kill and fail libra-agent at every system call, every state of the disk after a loss of power (hours)
	LIBRA_EDGE_EVERY=1 $(BIN)/python -m pytest -q -s tests/runtime/test_agent_killed.py \
	  tests/runtime/test_agent_power.py $(PYTEST_ARGS)

fault-catalogue: $(VENV)/.dev ## verify against every fault of the catalogue, on the demo policy
	PYTHONPATH=$(CURDIR) $(BIN)/python benchmarks/faults.py

mutants: $(VENV)/.dev ## random one-line changes of the runtime: which does verify not see; write docs/measurements
	PYTHONPATH=$(CURDIR) $(BIN)/python benchmarks/mutants.py

evaluate: $(VENV)/.dev ## demo policy and its release in closed loop, write docs/measurements
	$(BIN)/libra-edge compile examples/metaworld/checkpoint --data examples/metaworld/heldout \
	  --out out/metaworld-demo --force
	$(BIN)/python benchmarks/closed_loop.py

.PHONY: demo-flash sshd
demo-flash: $(VENV)/.demo sshd ## flash a robot behind a local sshd, break it, roll back, flash a fleet
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[fleet]'
	$(BIN)/python examples/flash/demo.py

# Only where installing it starts no service of the system's own: in a container.
sshd:
	@command -v sshd >/dev/null || [ -x /usr/sbin/sshd ] || [ -d /run/systemd/system ] || \
	  [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || \
	  { echo "installing openssh-server"; apt-get update -qq || true; \
	    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	      openssh-server openssh-client >/dev/null; }

# What the demo policy was trained on; it is there whole or not at all.
$(DEMONSTRATIONS): | $(VENV)/.dev
	$(BIN)/libra-edge collect --out $@ --episodes 60 --task faucet-open=130 \
	  --task faucet-close=130 --task drawer-open --task button-press-topdown --task handle-press \
	  --detour-share 0.5 --jobs 2

# A few demonstrations for whoever clones this: to calibrate on, and to try `train` with.
training-set: $(VENV)/.dev ## record examples/metaworld/training again
	$(BIN)/libra-edge collect --out $(TRAINING_SET) --episodes 8 --lossy --detour-share 0.25 \
	  --seed 5000 --jobs 2

demo-checkpoint: $(VENV)/.dev | $(DEMONSTRATIONS) ## train the demo policy again (over an hour)
	$(BIN)/libra-edge train $(DEMONSTRATIONS) --recipe examples/metaworld/train.toml --out runs/metaworld-base
	$(BIN)/libra-edge train $(DEMONSTRATIONS) --recipe examples/metaworld/real_time.toml \
	  --from runs/metaworld-base --out runs/metaworld

# What make demo-checkpoint trains, compiled, and measured where it has to last: in real time.
demo-policy: demo-checkpoint ## train the demo policy for real time, compile and measure it (hours)
	$(BIN)/libra-edge compile runs/metaworld --data examples/metaworld/heldout --target cpu-x86_64 \
	  --recipe fp32 --out out/metaworld-real-time --force
	$(BIN)/python benchmarks/real_time.py --checkpoint runs/metaworld
	for mode in sync async; do $(BIN)/libra-edge simulate out/metaworld-real-time --mode $$mode; done

bench-real-time: $(VENV)/.dev ## what old observations cost the demo policy, in virtual time; write docs/measurements
	$(BIN)/python benchmarks/real_time.py

.PHONY: bench-providers
bench-providers: $(VENV)/.dev ## OpenVINO beside ONNX Runtime's own code, write docs/measurements
	PYTHONPATH=$(CURDIR) $(BIN)/python benchmarks/providers.py

docs: $(VENV)/.dev ## regenerate docs/reference
	$(BIN)/python docs/generate.py

# Installed once for the demo (small), once for development; again when the pins change. The C++
# runtime is compiled meanwhile, once per machine: pip keeps one processor busy at most. Should that
# fail, the first compilation says why.
$(VENV)/.demo: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing 2 GB of packages into $(VENV); compiling the C++ runtime meanwhile"
	$(BIN)/python -m pip install -q -c constraints.txt -e . ziglang
	@$(BIN)/python -c "$(COMPILE_RUNTIME)" 2>/dev/null & runtime=$$!; \
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[compile,sim]'; installed=$$?; \
	wait $$runtime; exit $$installed
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.demo

$(BIN)/python: | system
	@[ -n "$(PYTHON)" ] && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed: install it, or run make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Software rendering for the simulator, and venv where Debian splits it off: installed if we may.
system:
	@wanted=""; missing=""; \
	$(PYTHON) -c 'import ensurepip' 2>/dev/null || wanted="python3-venv"; \
	ldconfig -p 2>/dev/null | grep -q 'libOSMesa\.so\.' || \
	  wanted="$$wanted $(RENDERER_PACKAGES)"; \
	[ -n "$$wanted" ] || exit 0; \
	if [ "$$(id -u)" = 0 ]; then root=""; else root="sudo -n"; fi; \
	if command -v apt-get >/dev/null && $$root true 2>/dev/null; then \
	  echo "installing system packages: $$wanted"; \
	  $$root apt-get update -qq || true; \
	  for package in $$wanted; do \
	    $$root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
	      $$package >/dev/null || missing="$$missing $$package"; done; \
	else missing="$$wanted"; fi; \
	[ -z "$$missing" ] || echo "Not installed here: $$missing. Install them with your system's" \
	  "package manager (Debian: apt-get install$$missing). Without a software renderer the" \
	  "simulator cannot draw, and whatever needs it says so."

.PHONY: test-sanitize bench-runtime bench-targets bench-rest bench-paper-size

test-sanitize: $(VENV)/.dev ## the runtime under ThreadSanitizer, AddressSanitizer, UBSan (needs g++)
	$(BIN)/python -m pytest -m sanitize tests/runtime/test_sanitize.py $(PYTEST_ARGS)

bench-targets: $(VENV)/.dev | $(DEMONSTRATIONS) ## RTX 4090 engines built here, bounds on every target; write docs/measurements
	$(BIN)/python benchmarks/targets.py

bench-rest: $(VENV)/.dev ## recipes for GPUs with the rest in 32 and in 16 bits, bounds with launches; write docs/measurements
	$(BIN)/python benchmarks/rest.py

bench-paper-size: $(VENV)/.dev ## compile a policy of 3 B parameters for an RTX 4090, write time and memory
	$(BIN)/python benchmarks/paper_size.py

bench-runtime: $(VENV)/.dev ## measure the runtime's tick, overhead and latency, write docs/measurements
	$(BIN)/libra-edge compile examples/metaworld/checkpoint --data examples/metaworld/heldout \
	  --out out/metaworld-demo --force
	$(BIN)/python benchmarks/runtime.py

.PHONY: bench-train-memory
bench-train-memory: $(VENV)/.dev ## memory of training on 20,000 frames of two 640 x 480 cameras, write docs/measurements
	$(BIN)/python benchmarks/train_memory.py

.PHONY: gpu-check
gpu-check: $(VENV)/.dev ## what an NVIDIA GPU makes of our policies, with parity; write docs/measurements
	$(BIN)/python benchmarks/gpu_check.py --kit out/gpu-kit --export
