"""What trainers share that learn from the whole pool: bought and unlabeled rows in each step."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge
from numpy import ndarray

from alrun.graph.pseudo_labels import PseudoLabels
from alrun.models.network import Network
from alrun.pool import Pool
from alrun.training.consistency import Consistency, Teacher
from alrun.training.fit import Fit
from alrun.training.pool_fit import Curriculum, PoolFit
from alrun.training.recipe import Recipe
from alrun.training.seeding import seeded
from alrun.training.supervised import Supervised
from alrun.training.taught_fit import TaughtFit
from alrun.training.trainer import Chance


@dataclass(frozen=True)
class SemiSupervised(Supervised):
    """Gradient descent on bought and unlabeled rows at once.

    An epoch is a pass through the unlabeled rows. A step has `labeled_batch_size` bought ones, from shuffled
    passes joined end to end (some several times where there are fewer), and unlabeled ones up to
    `batch_size`, shared out as evenly as can be. Its loss is a sum over its items divided by their number.
    Where nothing is unlabeled an epoch is a pass through the labels.

    Attributes:
        labeled_batch_size: bought rows of a step, fewer than `batch_size`.
        variant: what the paper says, or what its code does where that differs.
    """

    labeled_batch_size: Annotated[int, Ge(1)]
    variant: Literal["paper", "repo"]

    def __post_init__(self) -> None:
        """Refuses steps without room for unlabeled rows.

        Raises:
            ValueError: `labeled_batch_size` not below `batch_size`, or what `Recipe` refuses.
        """
        super().__post_init__()
        if self.labeled_batch_size >= self.batch_size:
            raise ValueError(
                f"trainer.labeled_batch_size must be below trainer.batch_size, got {self.labeled_batch_size} "
                f"and {self.batch_size}; the rest of a step are unlabeled items"
            )

    def reads(self, labeled: int, unlabeled: int) -> int:
        """Items that a fit to so many reads in training steps; patience is left out."""
        return self.epochs * self.items(labeled, unlabeled)

    def items(self, labeled: int, unlabeled: int) -> int:
        """Items of an epoch that reads the whole pool."""
        steps = -(-unlabeled // (self.batch_size - self.labeled_batch_size))
        return unlabeled + steps * self.labeled_batch_size if unlabeled else labeled

    @property
    def second(self) -> Recipe | None:
        """The recipe of a stage that learns from pseudo-labels, if there is one."""
        return None

    @property
    def pseudo(self) -> PseudoLabels | None:
        """How its pseudo-labels are made."""
        return None

    @property
    def agreement(self) -> Consistency | None:
        """How a student agrees with its teacher, if there is one."""
        return None

    def begun(self, network: Network, pool: Pool, rows: ndarray, held: ndarray, chance: Chance) -> Fit:
        """A fit to the whole pool before its first epoch; the loss of the rows held out may end a stage."""
        teacher = None
        if self.agreement is not None:
            with seeded(chance("weights", "second_head"), pool.inputs.device):
                teacher = Teacher(self.agreement, network)
        curriculum = Curriculum(self.labeled_batch_size, self.variant, self.second, self.pseudo, teacher)
        kind = PoolFit if teacher is None else TaughtFit
        return kind(self, network, pool, rows, held, curriculum)
