"""What runs have bought, for people to look at: the images or texts of a sampler's first and last batch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from hydra.utils import instantiate
from torch import Tensor

from torchal.data import Splits, with_repeats
from torchal.pool.round_result import RoundResult
from torchal.report.thumbnails import encoded, image_of
from torchal.runs.results import Run
from torchal.study.reading import StudyRun
from torchal.study.summary import Example, ExperimentSummary, Summary

EXAMPLES = 8
"""Rows of a batch that a report shows, unless it is told."""
_SCALING = ("standardize", "normalize")  # settings that change how rows look, and not which they are
_SIDE = 96  # pixels
_LETTERS = 240
_MOST_EXPERIMENTS = 12  # whose data are loaded


def add_examples(summary: Summary, found: Sequence[StudyRun], *, rows: int) -> Summary:
    """Return a summary with images or texts of what one run of each sampler bought first and last.

    The data of each experiment are loaded as its runs did. Where that does not work any more, or rows are neither
    images nor texts, there are no examples, and a note says why.

    Args:
        summary: of the runs.
        found: the runs.
        rows: how many of a batch.
    """
    notes: list[str] = []
    experiments = []
    loaded: dict[str, Splits | str] = {}
    for number, experiment in enumerate(summary.experiments):
        runs = [one for one in found if one.settings == experiment.key]
        if number >= _MOST_EXPERIMENTS:
            experiments.append(experiment)
            continue
        data, why = _data_of(runs[0].run, loaded)
        if data is not None and (misfit := _misfit(runs, data)):
            data, why = None, misfit
        if data is None:
            notes.append(f"{experiment.name}: no rows are shown, {why}.")
            experiments.append(experiment)
            continue
        experiments.append(_with_examples(experiment, runs, data, rows))
    if len(summary.experiments) > _MOST_EXPERIMENTS:
        notes.append(f"Rows are shown of the first {_MOST_EXPERIMENTS} of {len(summary.experiments)} experiments.")
    return replace(summary, experiments=experiments, notes=[*summary.notes, *notes])


def _data_of(run: Run, loaded: dict[str, Splits | str]) -> tuple[Splits | None, str]:
    """Return the data that a run was about, or why there are none to show."""
    settings = run.config.get("data")
    if not isinstance(settings, dict) or "_target_" not in settings:
        return None, "for the runs do not say where their data came from"
    foreign = [target for target in _targets(settings) if not target.startswith("torchal.data.")]
    if foreign:  # whoever wrote config.yaml would choose what is called here
        return None, f"for they come from {foreign[0]}, and only torchal.data is loaded"
    key = json.dumps([settings, run.config.get("repeat")], sort_keys=True)
    if key not in loaded:
        try:
            plain = {name: False if name in _SCALING else value for name, value in settings.items()}
            data: Splits = instantiate(plain, _convert_="object")
            repeat = run.config.get("repeat") or {"times": 1}
            loaded[key] = data if repeat["times"] == 1 else with_repeats(data, **repeat, seed=int(run.config["seed"]))
        except Exception as error:  # files that moved, an extra that is missing, settings of another version
            loaded[key] = f"for the data cannot be loaded: {' '.join(str(error).split())[:300]}"
    known = loaded[key]
    if isinstance(known, str):
        return None, known
    shown = known.documents is not None or _image_shape(known) is not None
    return (known, "") if shown else (None, "for they are neither images nor texts")


def _targets(settings: Any) -> Iterator[str]:
    """Return all that settings call."""
    if isinstance(settings, dict):
        yield from (str(value) for name, value in settings.items() if name == "_target_")
        settings = list(settings.values())
    if isinstance(settings, list):
        for one in settings:
            yield from _targets(one)


def _misfit(runs: Sequence[StudyRun], data: Splits) -> str:
    """Return why these are not the data that the runs bought from, as far as that can be seen."""
    bought = [result for one in runs for result in one.run.rounds if len(result.rows)]
    row = max((int(result.rows.max()) for result in bought), default=-1)
    label = max((int(result.labels.max()) for result in bought), default=-1)
    n_rows, n_classes = len(data.train.targets), len(data.class_names)
    if row < n_rows and label < n_classes:
        return ""
    return f"for the data have {n_rows} rows of {n_classes} classes, and the runs bought row {row} and class {label}"


def _image_shape(data: Splits) -> tuple[int, ...] | None:
    inputs = data.train.inputs
    if not isinstance(inputs, Tensor):
        return None
    if data.image_shape is not None:
        return data.image_shape
    shape = tuple(inputs.shape[1:])
    return shape if len(shape) == 2 or (len(shape) == 3 and shape[0] in (1, 3)) else None


def _with_examples(
    experiment: ExperimentSummary, runs: Sequence[StudyRun], data: Splits, rows: int
) -> ExperimentSummary:
    """Return the experiment with what the run of the lowest seed has bought, of each sampler."""
    entries = {}
    seeds = {one.seed for one in runs if one.run.config.get("data") == runs[0].run.config.get("data")}
    for sampler, entry in experiment.entries.items():
        own = sorted((one for one in runs if one.sampler == sampler and one.seed in seeds), key=lambda one: one.seed)
        picked = (
            [result for result in own[0].run.rounds if result.picked_by != "start" and len(result.rows)] if own else []
        )
        if not picked:
            entries[sampler] = entry
            continue
        first, last = (_shown(result, data, rows) for result in (picked[0], picked[-1]))
        entries[sampler] = replace(entry, first=first, last=last)
    return replace(experiment, entries=entries)


def _shown(result: RoundResult, data: Splits, rows: int) -> list[Example]:
    labels = [data.class_names[label] for label in result.labels[:rows].tolist()]
    picked = result.rows[:rows]
    if data.documents is not None:
        texts = [data.documents[row] for row in picked.tolist()]
        return [Example(label, text=_short(text)) for label, text in zip(labels, texts, strict=True)]
    inputs: Any = data.train.inputs
    shape = _image_shape(data)
    assert shape is not None  # else there were no examples
    images = inputs[picked].reshape(-1, *shape).cpu().to(torch.float64)
    examples = []
    for label, image in zip(labels, images.numpy(), strict=True):
        small = encoded(image_of(image, low=float(image.min()), high=float(image.max())), side=_SIDE)
        examples.append(Example(label, picture=small.uri, width=small.width, height=small.height))
    return examples


def _short(text: str) -> str:
    return text if len(text) <= _LETTERS else text[:_LETTERS].rsplit(None, 1)[0] + " …"
