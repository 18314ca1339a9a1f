# Everything runs in .venv, which the first target that needs it creates.
.DEFAULT_GOAL := help
.PHONY: help setup demo test test-gpu check lint format serve proto train-tiny results bench fuzz clean
PYTHON ?= python3
BIN := .venv/bin
SERVES := .venv/.serves
INSTALLED := .venv/.installed
INSTALL := PYTHON=$(PYTHON) sh scripts/install.sh .venv
EDITABLE := --quiet --config-settings editable_mode=compat --editable

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# What serving needs: no torch, which is most of the download.
$(SERVES): pyproject.toml constraints.txt scripts/install.sh
	$(INSTALL) cpu $(EDITABLE)
	@touch $@

$(INSTALLED): pyproject.toml constraints.txt scripts/install.sh
	$(INSTALL) cpu,train,dev $(EDITABLE)
	@touch $(SERVES) $@

setup: $(INSTALLED)  ## create .venv with everything for development

demo: $(SERVES)  ## serve the bundled model, post a sample, print the answer
	$(BIN)/python -m service.demo

test: export CUDA_VISIBLE_DEVICES =
test: $(INSTALLED)  ## run the tests (some five minutes on two cores)
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "not fuzz and not alone" -n 2 --dist loadfile
	$(BIN)/pytest -m alone tests/sdcom/video

test-gpu: $(INSTALLED)  ## run the tests that need an NVIDIA GPU, which `make test` hides
	$(BIN)/python -c "import torch; assert torch.cuda.is_available(), 'torch finds no NVIDIA GPU here'"
	$(BIN)/pytest tests/sdcom/engine/test_cuda.py

check: lint test  ## what CI runs: lint and test

lint: $(INSTALLED)  ## ruff, mypy, import contracts, protocol and Dockerfile lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/buf lint
	$(BIN)/hadolint Dockerfile

format: $(INSTALLED)  ## sort imports and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

serve: $(SERVES)  ## serve the bundled model on port 8000 (gRPC: 50051)
	$(BIN)/sdcom serve

proto: $(INSTALLED)  ## generate service/pb from protos/
	$(BIN)/python -m grpc_tools.protoc -Iservice/pb=protos/sdcom/v1 \
		--python_out=. --pyi_out=. --grpc_python_out=. service/pb/recognition.proto

train-tiny: $(INSTALLED)  ## train both stages on rendered clips, to see that it works
	rm -rf runs/tiny runs/tiny-rendered
	$(BIN)/sdcom train tiny --rendered 7 --output runs/tiny

fuzz: $(INSTALLED)  ## send thousands of damaged files through a running server
	$(BIN)/pytest -m fuzz

results: $(INSTALLED)  ## make the tables of docs/results.md and MODEL_CARD.md anew, from docs/records
	$(BIN)/sdcom results docs/records/sdcom-jhmdb-mini-split1-seed0.json docs/records/*.json \
		--output docs/results.md --card MODEL_CARD.md

bench: $(SERVES)  ## time each part at each width, and whole clips, beside their FLOPs
	$(BIN)/sdcom bench parts
	$(BIN)/sdcom bench engine

clean:  ## remove the environment, caches and runs
	rm -rf .venv runs build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
