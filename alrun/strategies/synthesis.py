"""Images that the round's model is unsure of, asked of the generator."""

import numpy as np

from alrun.generative.search import Found, LatentSearch
from alrun.rounds import Round
from alrun.training.model import Model
from alrun.training.seeding import seeded


def asked_model(current: Round) -> Model:
    """The round's model.

    Raises:
        ValueError: no label was bought yet.
    """
    if current.model is None:
        raise ValueError("a latent search needs a model, but no label was bought yet; use budget.initial")
    return current.model


def synthesized(current: Round, search: LatentSearch, count: int, rng: np.random.Generator) -> Found:
    """So many images by this search from latents of the prior; the first of them do not depend on `count`.

    Its time is the caller's to charge.

    Raises:
        ValueError: no model yet, other than two classes for `min_distance`, or scores that are no numbers.
    """
    generator, network = current.generator, asked_model(current).network.eval()
    start = generator.draw(count, rng)
    with seeded(rng, generator.device):  # nothing is drawn inside: a GPU repeats itself
        return search.run(generator.images, network, start, classes=current.pool.classes)
