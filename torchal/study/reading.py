"""Read the runs below some folders: whatever can be read, and what cannot, said."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import torchal
from torchal._records import without
from torchal.errors import ConfigError, RunError
from torchal.runs.results import Run, RunFolder
from torchal.runs.watching import WATCHED
from torchal.statistics import area_under_curve
from torchal.study.summary import Problem

OF_EXPERIMENT = ("data", "model", "select_model", "schedule", "start", "noise", "repeat", "cost")
"""Settings in which runs that are compared must agree, but for their seeds."""
SEEDS = {"seed", "random_state"}
"""Settings that follow from the seed of a run."""
SHORT = {
    "noise": "noise.share",
    "repeat": "repeat.times",
    "standardize": "data.standardize",
    "standardise": "data.standardize",
}
"""Names of settings that a filter may use, for those that they stand for."""


def part_of(metric: str) -> str:
    """Return the part of a round's record that a metric is in: that of the test part, or what was watched."""
    return "pool" if metric in WATCHED else "test"


@dataclass(frozen=True, eq=False)
class StudyRun:
    """A run, and what it is called.

    Attributes:
        data, model, sampler: names; those of classes where the config has none.
        seed: of the run.
        settings: what it shares with the runs that it may be compared with, as text.
        environment: what it was made with, as its folder says; empty where that does not.
    """

    run: Run
    data: str
    model: str
    sampler: str
    seed: int
    settings: str
    environment: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def flat(self) -> dict[str, Any]:
        """All settings by their dotted names, and the three names."""
        return {**flattened(self.run.config), "data": self.data, "model": self.model, "sampler": self.sampler}

    @cached_property
    def _areas(self) -> dict[str, float]:
        return {}

    def area(self, metric: str) -> float:
        """Return the mean height of the run's curve of a metric against labels; it is asked for again and again."""
        if metric not in self._areas:
            self._areas[metric] = area_under_curve(*self.run.curve(metric, part_of(metric)))
        return self._areas[metric]

    def has(self, metric: str) -> bool:
        """Tell whether all rounds have a finite value of a metric; of what was watched, whether any has."""
        part = part_of(metric)
        values = [getattr(result, part).get(metric) for result in self.run.rounds]
        if part == "pool":  # of the first rounds there may be none
            values = [value for value in values if value is not None]
        return bool(values) and all(value is not None and math.isfinite(value) for value in values)

    @property
    def where(self) -> str:
        """What a person calls it."""
        return f"{self.data}, {self.model}: {self.sampler}, seed {self.seed}"


@dataclass(frozen=True)
class Runs:
    """What was found.

    Attributes:
        found: all runs with at least one round, finished or not, in the order of their paths.
        empty: folders of runs that have no round yet.
        problems: folders that could not be read, and why.
        twice: folders that were left out, for the same run was found before.
    """

    found: list[StudyRun]
    empty: list[str]
    problems: list[Problem]
    twice: list[str]


def read_runs(roots: Sequence[str | PathLike[str]], *, only: Mapping[str, Sequence[str]] | None = None) -> Runs:
    """Read all runs below some folders, those that go on included.

    A folder that is damaged becomes a problem that is told, and the others are read. A run is damaged where a line of
    its record cannot be read, is not the one that was written, or does not follow from those before it.

    Args:
        roots: the folders.
        only: settings by their dotted names (or data, model, sampler, seed, noise, standardize), each with the values
            that are read; `*` and `?` stand for letters.

    Raises:
        RunError: one of the folders does not exist.
        ConfigError: no run has a setting of `only`.
    """
    found: dict[tuple[str, str, int], StudyRun] = {}
    empty: list[str] = []
    twice: list[str] = []
    problems: list[Problem] = []
    for folder in _run_folders(roots):
        try:
            one = _read(folder)
        except (RunError, OSError) as error:
            problems.append(Problem(str(folder), str(error).removeprefix(f"{folder}: ")))
            continue
        if not one.run.rounds:
            empty.append(str(folder))
            continue
        key = one.settings, json.dumps([one.sampler, one.run.config.get("sampler")], sort_keys=True), one.seed
        other = found.get(key)
        if other is None or (one.run.finished and not other.run.finished):
            found[key] = one
        if other is not None:
            twice.append(str(folder if found[key] is other else other.run.folder))
    runs = _named_apart(list(found.values()))
    return Runs(list(_only(runs, only or {})), empty, problems, twice)


def _run_folders(roots: Sequence[str | PathLike[str]]) -> Iterator[Path]:
    seen: set[Path] = set()
    for root in roots:
        if not Path(root).is_dir():
            raise RunError(f"there is no folder {root}")
        marks = ("rounds.jsonl", "checkpoint.pt")
        for folder in sorted({file.parent for mark in marks for file in Path(root).rglob(mark)}):
            if folder.resolve() not in seen:
                seen.add(folder.resolve())
                yield folder


def _read(folder: Path) -> StudyRun:
    environment = _environment(folder)
    try:
        run = RunFolder(folder).read()
        _check_follows(run)
    except RunError as error:
        made_by = packages_of(environment).get("torchal")
        if made_by not in (None, torchal.__version__):
            raise RunError(f"{error} (written by torchal {made_by}, this is {torchal.__version__})") from error
        raise
    names, seed = run.config.get("names"), run.config.get("seed")
    names = names if isinstance(names, Mapping) else {}
    if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
        raise RunError(f"{folder / 'config.yaml'} has the seed {seed!r}: runs are paired by whole numbers")
    model, sampler = (names.get(kind) or _class_of(run.config.get(kind)) for kind in ("model", "sampler"))
    settings = without({name: run.config.get(name) for name in OF_EXPERIMENT}, SEEDS)
    if not names:  # by Trainer itself, without a config: its folder says what it is compared with
        settings = {"folder": str(folder.parent), **settings}
    return StudyRun(
        run,
        data=str(names.get("data") or folder.parent.name),
        model=str(model),
        sampler=str(sampler),
        seed=seed or 0,
        settings=json.dumps(settings, sort_keys=True),
        environment=environment,
    )


def _check_follows(run: Run) -> None:
    """Require rounds whose numbers follow from each other.

    Raises:
        RunError: a round is missing, or has other numbers of labels than were bought.
    """
    last = None
    for number, result in enumerate(run.rounds):
        where = f"line {number + 1} of {run.folder / 'rounds.jsonl'}"
        if len(result.rows) != len(result.labels) or len(result.rows) != len(result.scores):
            raise RunError(
                f"{where} has {len(result.rows)} rows, {len(result.labels)} labels and {len(result.scores)} scores"
            )
        if last is not None:
            if result.round != last.round + 1:
                raise RunError(f"{where} is of round {result.round}, after round {last.round}")
            if result.n_labeled != last.n_labeled + len(result.rows):
                raise RunError(
                    f"{where} counts {result.n_labeled} labels: there were {last.n_labeled}, {len(result.rows)} came"
                )
        last = result


def _environment(folder: Path) -> dict[str, Any]:
    try:
        content = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def packages_of(environment: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the versions of the packages that a run was made with, none where its folder has no list of them."""
    packages = environment.get("packages")
    return packages if isinstance(packages, Mapping) else {}


def _class_of(settings: Any) -> str:
    """Return the name of the class in a setting: `_target_` of a config, or a repr."""
    if isinstance(settings, Mapping):
        return str(settings.get("_target_", "model")).rpartition(".")[2]
    return str(settings).partition("(")[0] or "unknown"


def flattened(config: Mapping[str, Any], at: str = "") -> dict[str, Any]:
    """Return nested settings by their dotted names.

    Example:
        >>> flattened({"data": {"path": "a.csv", "seed": 1}, "seed": 1})
        {'data.path': 'a.csv', 'data.seed': 1, 'seed': 1}
    """
    flat: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, list) and value and all(isinstance(one, Mapping) for one in value):
            value = {str(place): one for place, one in enumerate(value)}  # noqa: PLW2901 - as of samplers in one
        if isinstance(value, Mapping):
            flat |= flattened(value, f"{at}{key}.")
        else:
            flat[f"{at}{key}"] = value
    return flat


def differing(configs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the dotted names of settings that are not the same in all configs, seeds aside."""
    flat = [flattened(config) for config in configs]
    names = dict.fromkeys(name for one in flat for name in one if name.rpartition(".")[2] not in SEEDS)
    return [name for name in names if len({repr(one.get(name)) for one in flat}) > 1]


def _named_apart(runs: Sequence[StudyRun]) -> list[StudyRun]:
    """Return the runs with names of samplers that say which settings they have, where one name has several."""
    by_name: dict[str, list[StudyRun]] = {}
    for one in runs:
        by_name.setdefault(one.sampler, []).append(one)
    told = {id(one): name for name, some in by_name.items() for one, name in zip(some, _told_apart(some), strict=True)}
    return [replace(one, sampler=told[id(one)]) if told[id(one)] != one.sampler else one for one in runs]


def _told_apart(runs: Sequence[StudyRun]) -> list[str]:
    """Return a name for each run of samplers of one name: no two samplers with other settings have the same.

    A seed among the settings is one of them too, unless it is that of the run in all runs.
    """
    given = [one.run.config.get("sampler") for one in runs]
    flat = [flattened(own) if isinstance(own, Mapping) else {"": own} for own in given]
    every = dict.fromkeys(name for own in flat for name in own)
    follow = {
        name
        for name in every
        if name.rpartition(".")[2] in SEEDS
        and all(own.get(name) == one.seed for own, one in zip(flat, runs, strict=True))
    }
    kinds = [json.dumps({name: own[name] for name in own if name not in follow}, sort_keys=True) for own in flat]
    if len(set(kinds)) < 2:
        return [one.sampler for one in runs]
    mappings = [own for own in flat if "" not in own]
    apart = {name for name in every.keys() - follow if len({repr(own.get(name, ...)) for own in mappings}) > 1}
    names = {}
    for kind, own, one in zip(kinds, flat, runs, strict=True):
        settings = ", ".join(f"{name}={own[name]}" for name in every if name in apart and name in own)
        text = own.get("")
        if isinstance(text, str):
            names[kind] = " ".join(text.split())  # its repr, which a run without a config has
        else:
            names[kind] = f"{one.sampler} ({settings})" if settings else one.sampler
    if len(set(names.values())) < len(names):  # 1 and "1"
        names = {kind: f"{names[kind]} #{number}" for number, kind in enumerate(sorted(names), 1)}
    return [names[kind] for kind in kinds]


def _only(runs: Sequence[StudyRun], only: Mapping[str, Sequence[str]]) -> Iterator[StudyRun]:
    wanted = {SHORT.get(name, name): values for name, values in only.items()}
    known = Counter(name for one in runs for name in one.flat)
    for name in wanted:
        if runs and name not in known:
            raise ConfigError(f"no run has a setting {name!r}; there are {', '.join(sorted(known))}")
    for one in runs:
        if all(
            name in one.flat and any(_is_meant(one.flat[name], value) for value in values)
            for name, values in wanted.items()
        ):
            yield one


def _is_meant(value: Any, asked: str) -> bool:
    """Tell whether a setting is what was asked for, as YAML or Python write it: true and True, 0 and 0.0.

    Example:
        >>> [_is_meant(*pair) for pair in ((True, "true"), (0.0, "0"), (None, "null"), ("margin", "mar*"), (1, "2"))]
        [True, True, True, True, False]
    """
    if fnmatchcase(str(value), asked):
        return True
    if value is None or isinstance(value, bool):
        return json.dumps(value) == asked
    try:
        return isinstance(value, int | float) and float(asked) == value
    except ValueError:
        return False
