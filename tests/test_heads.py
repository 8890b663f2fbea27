"""Further outputs of a trainer, asked in a round: once a row, and in one pass with what shares their way."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from alrun.strategies.vaal import Vaal as Strategy


class OfEmbeddings(nn.Module):
    """A head on inputs of the last linear layer."""

    reads, width, widest = "embeddings", 2, 8

    def forward(self, x):
        return x[:, :2] * 2


def test_a_round_asks_a_head_once_a_row_and_counts_it_as_prediction(situation):
    at = situation()
    who = Strategy()
    current = at.round(who, 5)
    rows = at.pool.unlabeled
    first = current.head("discriminator", rows[:10])
    assert current.work.predicted == 10
    assert current.work.clock.seconds["predict"] > 0
    np.testing.assert_array_equal(current.head("discriminator", rows[5:12])[:5], first[5:])
    assert current.work.predicted == 12
    np.testing.assert_array_equal(first, at.model.head("discriminator", rows[:10]))
    with pytest.raises(ValueError, match="'losses' and its trainer gave discriminator, critic"):
        current.head("losses", rows)
    with pytest.raises(ValueError, match="no label was bought yet"):
        at.round(who, 5, cold=True).head("discriminator", rows)


def test_a_head_on_embeddings_shares_the_pass_with_embeddings_and_probabilities(situation):
    at = situation()
    at.model = replace(at.model, heads=nn.ModuleDict({"losses": OfEmbeddings(), **at.model.heads}))
    current = at.round(Strategy(), 5)
    rows = at.pool.unlabeled
    told = current.head("losses", rows)
    np.testing.assert_array_equal(told, 2 * current.embeddings(rows)[:, :2])
    np.testing.assert_array_equal(told, at.model.head("losses", rows))
    current.probabilities(rows)
    assert current.work.predicted == len(rows)
    with pytest.raises(ValueError, match="reads items, not embeddings"):
        at.model.head_from("discriminator", current.embeddings(rows))


@pytest.mark.parametrize("first", [0, 20])
def test_a_head_on_features_shares_one_pass_with_probabilities_bit_for_bit(situation, first):
    at, who = situation(), Strategy()
    rows = at.pool.unlabeled
    current = at.round(who, 5)
    current.probabilities(rows[:first])
    told = current.head("critic", rows)
    probabilities = current.probabilities(rows)
    assert current.work.predicted == first + len(rows)
    np.testing.assert_array_equal(probabilities, at.model.predict(rows))
    extract, _ = at.model.network.stages()
    with torch.no_grad():
        features = extract(at.model.network.fixed(at.inputs.take(rows))).flatten(1)
        np.testing.assert_array_equal(told, at.model.named("critic")(features).numpy())


def test_a_head_that_reads_no_features_has_a_pass_of_its_own(situation):
    with pytest.raises(ValueError, match="'discriminator' reads items, not features"):
        situation().model.predict_with("discriminator", np.arange(3))
