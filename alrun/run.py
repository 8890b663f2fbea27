"""A run from its settings to its last record; what is there already is not repeated."""

from collections.abc import Mapping
from typing import Any

from alrun.audience import Screen
from alrun.data.split import write_split
from alrun.environment import chosen_device, environment, forget_peak_memory
from alrun.experiment import Experiment
from alrun.lifetime import Shelf
from alrun.loop import Loop
from alrun.report.run_figures import draw_plane, draw_run
from alrun.state import RunFolder, Saved

Settings = Mapping[str, Any]


def run(experiment: Experiment, folder: RunFolder, settings: Settings, screen: Screen) -> Saved:
    """Runs what is missing of an experiment, and gives its records.

    Raises:
        ConfigError, ValueError, OSError: bad input, before the run folder is made wherever it can be known.
    """
    folder.same_settings(settings)
    if (whole := folder.finished(len(experiment.budget.batches))) is not None:
        screen.already(folder.path)
        if experiment.tracker is not None:
            experiment.tracker.sync(folder.path, settings, finished=True)
        return whole
    device = chosen_device(experiment.device)
    forget_peak_memory(device)
    experiment.prepare(screen)
    data = experiment.data()
    plan = experiment.budget.plan(len(data.labels))
    first = experiment.budget.first_rows(data.labels, data.classes, experiment.stream("initial"))
    where = environment(device, data, experiment.seed)
    with folder.opened(settings, where):
        write_split(folder.path / "split.csv", data)
        saved = folder.load()
        digests = where["data"]["inputs"], where["data"].get("source")
        shelf = Shelf(experiment.cache, *digests, screen, folder.show)
        loop, heard = Loop(experiment, data, device, saved, shelf), True
        loop.tell_time(plan, screen)
        loop.make_fixed(screen)
        loop.make_reference(screen)
        folder.same_made(saved, *loop.made_digests)
        loop.take_up(folder)
        loop.restore()
        screen.begin(len(plan), saved.round + 1)
        for number in range(saved.round + 1, len(plan)):
            loop.play(number, plan[number], first, folder, screen)
            if experiment.tracker is not None and heard:
                heard = experiment.tracker.sync(folder.path, settings, finished=False)
        folder.write_tables(saved)
        if len(data.inputs.shape) == 2 and data.inputs.shape[1] == 2 and loop.model is not None:
            draw_plane(folder.figures / "plane.png", data, loop.model, saved.purchases)
        draw_run(folder.figures / "accuracy.png", saved.records, settings["choices"])
        if experiment.tracker is not None:
            experiment.tracker.sync(folder.path, settings, finished=True)
        folder.finish()
    return saved
