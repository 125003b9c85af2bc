# One command each; `make help` lists them. Everything runs as root on Debian 12.

SHELL := /bin/bash
DATA_DIR ?= /var/lib/coracle
HOST := $(shell rustc -vV | sed -n 's/^host: //p')
RELEASE := target/$(HOST)/release/coracle

.PHONY: help up down clean-node test bench build packages ci

help: ## List the commands.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

up: ## Build, start a cluster in the background and run the example in it.
	@scripts/up $(DATA_DIR)

down: ## Stop cluster and pods; leave nothing of them on the host but the data.
	@scripts/down $(DATA_DIR)

clean-node: ## As down, and remove the data too.
	@scripts/down $(DATA_DIR) --remove-data

test: ## Format, clippy, unit, API and end-to-end tests.
	@scripts/test

bench: ## Measure start-up, memory, size and the API's throughput.
	@scripts/bench $(ONLY)

build: ## Build the release binary.
	cargo build --release --locked --bin coracle

packages: ## Install what is missing of Debian's packages.
	@scripts/packages

ci: test
