"""A generator's training that was killed goes on, and ends with the bits of one that was not."""

import signal
from pathlib import Path

import numpy as np
import torch

# BatchNorm, dropout, a falling rate; the state is kept after every block of 20 iterations
TRAINING = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import numpy as np
import alrun.cache
from alrun.generative.fitting import Fit
from alrun.pool import Inputs
from alrun.shelf import Deaf
from generators import gan, squares
alrun.cache.STATE_SECONDS = 0.0
settings = gan("res_wgan_ct", width=2, iterations=24, critic_steps=1)
inputs = Inputs(squares())

def make(making):
    settings.make(inputs, np.random.default_rng(0), making)
"""
KILLED = 'deadly(Fit, "critic_step", 23, True)\n'
KEPT = """
kept = alrun.cache.Cache("cache").kept("generator", {"of": "test"}, make, lambda folder: folder, Deaf())
print(kept.artifact.listing["facts"]["digest"])
"""


def losses(folder: Path) -> np.ndarray:
    """The table without its seconds."""
    (file,) = folder.glob("cache/generator/*/losses.csv")
    table = np.genfromtxt(file, delimiter=",", names=True)
    return table[[name for name in table.dtype.names or () if name != "seconds"]]


def test_a_killed_training_goes_on_with_the_same_bits(nursery, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir()
    broken.mkdir()
    ended = nursery.run(broken, code=TRAINING + KILLED + KEPT, verb=False)
    assert ended.returncode == -signal.SIGKILL, ended.output
    (state,) = broken.glob("cache/generator/*.state")
    kept = torch.load(state, weights_only=True)["state"]
    assert [record["iteration"] for record in kept["records"]] == [20.0]
    told = [nursery.run(folder, code=TRAINING + KEPT, verb=False) for folder in (broken, whole)]
    assert [each.returncode for each in told] == [0, 0], told[0].output
    assert told[0].stdout == told[1].stdout
    assert len(told[0].stdout.strip()) == 64
    np.testing.assert_array_equal(losses(broken), losses(whole))
    stages = [next(folder.glob("cache/generator/*/stages.png")) for folder in (broken, whole)]
    assert stages[0].read_bytes() == stages[1].read_bytes()
