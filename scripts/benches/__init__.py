"""The engine's benchmarks, one module a room; scripts/bench.py runs them."""
