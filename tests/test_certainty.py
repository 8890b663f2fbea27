"""How certain rows are, and what classes weigh: golden values."""

import numpy as np
import pytest
import torch

from alrun.graph.certainty import certainties, class_weights


def test_rows_between_two_classes_have_no_weight_and_do_not_make_rounding_large():
    values = np.full((5, 3), 1 / 3, np.float32)
    values[:, 0] *= np.float32(1 + 1e-7)
    omegas, zero = certainties(torch.from_numpy(values))
    assert not omegas.any()
    assert not zero.any()


def test_certainties_are_golden():
    values = torch.tensor([[2.0, 0.0], [1.0, 1.0], [3.0, 1.0], [-1.0, 0.0], [-1.0, 5.0]])
    omegas, zero = certainties(values)
    quarter = 1 - (0.25 * np.log(4) + 0.75 * np.log(4 / 3)) / np.log(2)
    np.testing.assert_allclose(omegas, [1, 0, quarter, 0, 1], atol=1e-12)
    assert zero.tolist() == [False, False, False, True, False]


def test_class_weights_are_golden():
    labels = np.array([0, 0, 0, 2])
    np.testing.assert_allclose(class_weights(labels, 3, "classes"), [0.5, 0, 1.5], rtol=1e-6)
    np.testing.assert_allclose(class_weights(labels, 3, "examples"), [4 / 9, 0, 4 / 3], rtol=1e-6)
    full = class_weights(np.array([0, 0, 0, 1]), 2, "examples")
    assert full[[0, 0, 0, 1]].mean() == pytest.approx(1)
