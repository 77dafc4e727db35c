"""Say in a line which of two is better, by how much and how sure: `python -m experiments.compare margin uniform`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from torchal.errors import ConfigError, TorchalError
from torchal.runs.metrics import LOWER_IS_BETTER
from torchal.statistics.comparisons import compare, runs_needed, signed_rank_probabilities
from torchal.study.numbers import MINUS, probability
from torchal.study.reading import StudyRun, read_runs
from torchal.study.summary import Estimate
from torchal.study.words import difference

_MOST_NAMES = 5  # of experiments in a line
_SIDES = ("data", "model", "settings", "sampler")


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the runs of both sides, pair them, and print the answer."""
    parser = argparse.ArgumentParser(prog="python -m experiments.compare", description=__doc__)
    for side in ("a", "b"):
        parser.add_argument(side, metavar=side.upper(), help="a folder with runs below it, or the name of a sampler")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="where samplers' runs are looked for (runs)")
    parser.add_argument("--metric", default="accuracy", help="of the test part (accuracy)")
    parser.add_argument(
        "--rope", type=float, help="also how probable each is better by more than this: of no practical difference"
    )
    options = parser.parse_args(arguments)
    try:
        problems: dict[str, str] = {}
        try:
            first, second = (_side(given, options.runs, problems) for given in (options.a, options.b))
        finally:
            for folder, why in problems.items():
                print(f"could not be read: {folder}: {why}", file=sys.stderr)
        print(answer(first, second, options))
    except (TorchalError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _side(given: str, runs: Path, problems: dict[str, str]) -> list[StudyRun]:
    """Return the finished runs of one side, and put what cannot be read into problems."""
    is_folder = Path(given).is_dir()
    found = read_runs([given if is_folder else runs])
    problems |= {problem.folder: problem.why for problem in found.problems}
    finished = [one for one in found.found if one.run.finished]
    if is_folder and not finished:
        raise ConfigError(f"there is no finished run below {given}")
    own = finished if is_folder else [one for one in finished if one.sampler == given]
    own = own or [one for one in finished if fnmatchcase(one.sampler, given)]
    if not own:
        samplers = ", ".join(sorted({one.sampler for one in finished})) or "no others"
        raise ConfigError(
            f"there is no finished run below {runs} with the sampler {given}, and {given} is no folder; "
            f"there are runs of {samplers}"
        )
    return own


def answer(first: Sequence[StudyRun], second: Sequence[StudyRun], options: argparse.Namespace) -> str:
    """Return the line: runs are paired on seed and on all of data, model, settings and sampler that both sides share.

    Two samplers by their names are compared in the same experiments only. Of folders, the line says what differs.

    Raises:
        ConfigError: no run of the one side has a partner on the other; or a run has several.
    """
    metric = options.metric
    # What no value of is on both sides is what differs between them
    shared = [name for name in _SIDES if {getattr(one, name) for one in first} & {getattr(one, name) for one in second}]
    if not any(Path(given).is_dir() for given in (options.a, options.b)):
        shared = [name for name in _SIDES if name in shared or name != "sampler"]
    areas = [_areas(runs, shared, metric, side) for runs, side in ((first, options.a), (second, options.b))]
    pairs = sorted(areas[0].keys() & areas[1].keys())
    if not pairs:
        raise ConfigError(f"no run of {options.a} has a partner of {options.b} with the same seed, data and settings")
    values = [np.array([side[key] for key in pairs]) for side in areas]
    down = metric in LOWER_IS_BETTER
    found = compare(*values, lower_is_better=down)
    gap = difference(Estimate(found["difference"], found["lower"], found["upper"])).replace(MINUS, "-")
    on = f"over {len(pairs)} pair{'s' * (len(pairs) > 1)} of runs"
    common = [name for name in shared if name != "sampler"]
    places = {_key(one, common)[1:]: one for one in first if _key(one, shared) in areas[1]}
    if len(places) > 1:
        names = sorted({f"{one.data} {one.model}" for one in places.values()})
        listed = ", ".join(names[:_MOST_NAMES]) + ", ..." * (len(names) > _MOST_NAMES)
        on += f" of {len(places)} experiments ({listed})"
    others = [name for name in ("data", "model") if name not in shared] or ["settings"] * ("settings" not in shared)
    if others:
        on += f" whose {' and '.join(others)} differ{'s' * (others == ['model'])}"
    won = f"{found['wins']} won, {found['ties']} equal, {found['losses']} lost"
    better = (found["difference"] < 0) == down
    if found["p"] is None:
        why = (
            "too few to say how sure that is" if len(pairs) < 2 else "the same in each, so no test says how sure it is"
        )
        return f"{options.a} - {options.b}: {gap} in area of {metric}, {on}: {why}"
    if found["p"] < 0.05 and found["difference"]:
        side, other = (options.a, options.b) if better else (options.b, options.a)
        told = f"{side} is better than {other}"
    else:
        told = f"Neither of {options.a} and {options.b} is shown to be better"
        more = runs_needed(values[0] - values[1])["more"]
        if more:
            on += f" (some {more} more would show a difference as large as this one, 4 times in 5)"
    p = f"{probability(found['p'])} of this comparison alone"
    line = f"{told}: {gap} in area of {metric}, {p}, {on}; {won}"
    return line if options.rope is None else f"{line}; {_bayesian(values, options, down=down)}"


def _bayesian(values: Sequence[NDArray[Any]], options: argparse.Namespace, *, down: bool) -> str:
    """Return the probabilities of the Bayesian signed-rank test."""
    found = signed_rank_probabilities(values[0] - values[1], rope=options.rope)
    first, second = (found["left"], found["right"]) if down else (found["right"], found["left"])
    return (
        f"probability that {options.a} is better {first:.2f}, that {options.b} is {second:.2f}, that they differ by at "
        f"most {options.rope:g} {found['rope']:.2f}"
    )


def _key(one: StudyRun, shared: Sequence[str]) -> tuple[object, ...]:
    """Return what runs are paired on: the seed, and what both sides share."""
    return (one.seed, *(getattr(one, name) for name in shared))


def _areas(runs: Sequence[StudyRun], shared: Sequence[str], metric: str, side: str) -> dict[tuple[object, ...], float]:
    areas: dict[tuple[object, ...], float] = {}
    for one in runs:
        if not one.has(metric):
            raise ConfigError(f"{one.run.folder} has no {metric} of its test part in every round")
        key = _key(one, shared)
        if key in areas:
            raise ConfigError(f"{side} has several runs of {one.where} that could be paired; name fewer by a folder")
        areas[key] = one.area(metric)
    return areas


if __name__ == "__main__":
    sys.exit(main())
