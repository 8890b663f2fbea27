"""Compiled kernels and the plain paths in real runs, and rows shared among threads."""

import csv
import json

import numpy as np
import pytest
import torch
from test_cli import alrun

from alrun.compiled import COMPILED, kernel, threads


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled here")
def test_without_compiled_kernels_runs_buy_the_same_rows(nursery, tmp_path):
    words = ["-m", "tracker=none", "budget.rounds=2", "trainer.epochs=2", "strategy=diffusion,coreset"]
    for name in ("compiled", "plain"):
        (tmp_path / name).mkdir()
    for done in (
        nursery.run(tmp_path / "compiled", *words),
        alrun(tmp_path / "plain", *words, NUMBA_DISABLE_JIT="1"),
    ):
        assert done.returncode == 0, done.stderr
    for strategy in ("diffusion", "coreset"):
        folders = {path.parts[-5]: path for path in tmp_path.glob(f"*/outputs/*/{strategy}/*")}
        bought = {name: (folder / "selections.csv").read_bytes() for name, folder in folders.items()}
        told = {
            name: json.loads((folder / "environment.json").read_text())["kernels"]
            for name, folder in folders.items()
        }
        assert bought["plain"] == bought["compiled"]
        assert told["compiled"].startswith("numba ")
        assert told["plain"] == "plain (NUMBA_DISABLE_JIT is set)"


@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("n", [0, 1, 3, 1000])
def test_rows_are_shared_out_once_each(count, n):
    before, done = torch.get_num_threads(), np.zeros(n, np.int64)

    def work(start, stop):
        done[start:stop] += 1

    try:
        torch.set_num_threads(count)
        with threads() as share:
            share(work, n)
            share(work, n)
    finally:
        torch.set_num_threads(before)
    assert (done == 2).all()


def test_what_fails_in_a_thread_is_raised():
    def fail(start, stop):
        raise ValueError(f"rows {start} to {stop}")

    with threads() as share, pytest.raises(ValueError, match="rows 0 to"):
        share(fail, 10)


@pytest.mark.skipif(not COMPILED, reason="nothing is compiled here")
def test_compiling_is_charged_apart_from_the_part_that_needed_it(tmp_path):
    words = ["tracker=none", "budget.rounds=1", "trainer.epochs=1", "strategy=coreset"]
    done = alrun(tmp_path, *words, NUMBA_CACHE_DIR=str(tmp_path / "kernels"))
    assert done.returncode == 0, done.stderr
    (file,) = tmp_path.glob("outputs/*/*/*/rounds.csv")
    with file.open() as lines:
        record = list(csv.DictReader(lines))[-1]
    compiling = float(record["compile_seconds"]) + float(record["once_compile_seconds"])
    assert compiling > 1
    assert float(record["query_seconds"]) < compiling


def test_a_kernel_adds_in_the_order_written():
    @kernel
    def added(values):
        total = 0.0
        for value in values:
            total += value
        return total

    values = np.random.default_rng(0).normal(size=10_000)
    assert added(values) == np.cumsum(values)[-1]
