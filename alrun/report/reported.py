"""Error rates that others reported and that were not run here, beside those that were."""

from collections.abc import Callable, Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from alrun.report.aggregating import Panel

MARKERS = "o^sDvP<>hX"
SHADES = ("#6e6e6e", "#a0a0a0", "#474747")
SAID = "reported, not run"

Marks = Mapping[str, tuple[str, str]]


def reported(panel: Panel) -> dict[str, dict[int, float]]:
    """Error (%) by label count that the settings of the panel's runs quote (`preset.reported`), by name."""
    found: dict[str, dict[int, float]] = {}
    for method in panel.methods:
        for run in method.all:
            for name, errors in run.reported.items():
                found.setdefault(name, {}).update(errors)
    return {name: dict(sorted(errors.items())) for name, errors in found.items()}


def marks(panels: Sequence[Panel]) -> Marks:
    """Marker and shade of all that these panels quote, in the order of the settings."""
    names = dict.fromkeys(name for panel in panels for name in reported(panel))
    return {
        name: (MARKERS[place % len(MARKERS)], SHADES[place % len(SHADES)]) for place, name in enumerate(names)
    }


def draw_reported(axes: Axes, panel: Panel, looks: Marks, change: Callable[[float], float]) -> None:
    """Hollow marks joined by dots; `change` makes of an error what the axis shows."""
    for name, errors in reported(panel).items():
        if name in looks:
            axes.add_line(_line(name, looks[name], list(errors), [change(each) for each in errors.values()]))
    axes.autoscale_view()


def handles_of(looks: Marks) -> list[Line2D]:
    """Legend entries."""
    return [_line(name, look, [], []) for name, look in looks.items()]


def told(name: str) -> str:
    """The name, marked as not ours."""
    return f"{name} ({SAID})"


def _line(name: str, look: tuple[str, str], across: Sequence[int], up: Sequence[float]) -> Line2D:
    marker, shade = look
    return Line2D(
        across,
        up,
        color=shade,
        linestyle=(0, (1, 2)),
        lw=1.0,
        marker=marker,
        markersize=6,
        markerfacecolor="white",
        label=told(name),
        zorder=4,
    )
