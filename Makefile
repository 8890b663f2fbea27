check: ## linters and types
	uv run ruff check . && uv run ruff format --check . && uv run pyright --pythonpath .venv/bin/python

test: ## the suite, under 8 minutes on two cores
	uv run pytest

slow: ## what needs minutes
	uv run pytest -m slow

wheel: ## dist/alrun-*.whl
	uv build --wheel

.PHONY: check test slow wheel
