"""Training of a student that agrees with the average of what it has been, alone or with label propagation."""

from dataclasses import dataclass
from typing import Annotated

from annotated_types import Ge, Gt, Lt

from alrun.training.consistency import Consistency
from alrun.training.label_propagation import LabelPropagation
from alrun.training.semi_supervised import SemiSupervised


@dataclass(frozen=True)
class MeanTeacher(SemiSupervised):
    """A student that learns the labels and agrees with its teacher on all items; the teacher is the model.

    To the loss of a step's labels, a sum divided by the number of all its items, come the mean squared
    difference between the softmax of the student's second head and of the teacher on another augmentation,
    and a small cost of the distance between the student's heads; see `Consistency` and `Teacher`. Without
    augmentation and dropout, both see the same.

    Attributes:
        consistency, ramp_up, ema_decay, logit_distance: `weight`, `ramp_up`, `decay` and `logit_distance` of
            `Consistency`.
        patience, validation: of no use here, and refused: a teacher is an average of many epochs.

    Source: Tarvainen and Valpola 2017; S3 section 5.2, which reproduces their code. Both variants are that
    code: BatchNorm's running moments are the teacher's own, seen in training mode, and never averaged.
    Departs: the last step of an epoch is not dropped; steps are as even as can be.
    """

    consistency: Annotated[float, Ge(0)]
    ramp_up: Annotated[int, Ge(0)]
    ema_decay: Annotated[float, Ge(0), Lt(1)]
    logit_distance: Annotated[float, Gt(0)] | None

    def __post_init__(self) -> None:
        """Refuses to look for a best epoch.

        Raises:
            ValueError: patience, labels held out, or what `SemiSupervised` refuses.
        """
        super().__post_init__()
        if self.patience is not None:
            raise ValueError(
                f"trainer.patience must be null with a teacher, which averages many epochs, got "
                f"{self.patience}; set trainer.epochs instead"
            )
        if self.validation > 0:
            raise ValueError(
                f"trainer.validation holds labels out for patience and must be 0 with a teacher, got "
                f"{self.validation:g}; set trainer.validation=0.0"
            )

    @property
    def agreement(self) -> Consistency:
        """How student and teacher agree."""
        return Consistency(self.consistency, self.ramp_up, self.ema_decay, self.logit_distance)


@dataclass(frozen=True)
class MeanTeacherLabelPropagation(MeanTeacher, LabelPropagation):
    """A mean teacher first, then a stage with both losses: pseudo-labels for the student, and the teacher.

    The first stage is `MeanTeacher`, `epochs` long, the second as that of `LabelPropagation`. Embeddings are
    the student's, as in algorithm 1.

    Attributes:
        variant: with `paper` the teacher goes on through the second stage, and the ramp-up is over; `repo`
            begins the second stage with a copy of the student for a teacher, and ramps up again.

    Source: S3 section 4, "Combination with other approaches"; ALGORITHMS 4.3, item 12. Departs from the
    code: there the second stage's teacher is drawn anew, and forgets that within some steps.
    """
