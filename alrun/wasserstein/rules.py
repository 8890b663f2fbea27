"""Which parts of the search are used."""

from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le

Solver = Literal["highs", "cbc"]


@dataclass(frozen=True)
class Rules:
    """The parts of a search.

    Attributes:
        start: the first selection: greedy k-centers, or k-medoids.
        root: raise the Lagrangian bound, round what it says to selections, fix columns by it (3.4).
        swaps: improve selections by balanced Lloyd and by swaps (3.4).
        capacitated: (B+) cuts instead of (B).
        lower: static cut: `filling` (6*), `nearest` (6'), or none.
        triangle: (7), for cosine (7r), at each selection. dual: (8), for metrics only.
        pruning: S2's constraints P (3.5). `near`: so many rows at most may differ from the best selection
            (beta / 2); None is half of those to be chosen. `far`: so many at least differ from the others
            (gamma / 2).
        solver, master_gap, master_seconds: of the master program; its relative gap and time.
        columns: the master chooses among so many columns, the most promising; None is all. Its bound then
            holds for these only and is not used.
    """

    start: Literal["k_centers", "k_medoids"]
    root: bool
    swaps: bool
    capacitated: bool
    lower: Literal["filling", "nearest", "none"]
    triangle: bool
    dual: bool
    pruning: bool
    near: Annotated[int, Ge(0)] | None
    far: Annotated[int, Ge(1)]
    solver: Solver
    master_gap: Annotated[float, Ge(0), Le(1)]
    master_seconds: Annotated[float, Gt(0)] | None
    columns: Annotated[int, Ge(1)] | None
