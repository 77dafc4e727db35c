"""Draw learning curves from run folders: `python -m experiments.chart runs/digits-logistic --out chart.pdf`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torchal.errors import ConfigError, TorchalError
from torchal.runs import charts
from torchal.runs.curves import learning_curve
from torchal.runs.results import AXES, Run, find_runs
from torchal.study.reading import flattened


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the runs below some folders, group them by sampler, and write one chart."""
    parser = argparse.ArgumentParser(prog="python -m experiments.chart", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders with runs somewhere below them")
    parser.add_argument("--out", type=Path, default=Path("chart.png"), help="where to write: .png, .pdf or .svg")
    parser.add_argument("--metric", default="accuracy", help="accuracy, log_loss, or another that the runs recorded")
    parser.add_argument("--part", default="test", choices=["test", "validation"])
    parser.add_argument(
        "--by",
        nargs="+",
        default=["sampler"],
        metavar="SETTING",
        help="what a curve stands for: sampler, model, data, or a setting of the runs, as schedule.batch_size",
    )
    parser.add_argument("--against", default="labels", choices=AXES, help="what the curves are drawn against")
    parser.add_argument("--title", default="")
    options = parser.parse_args(arguments)
    try:
        runs = [run for folder in options.folders for run in find_runs(folder)]
        finished = [run for run in runs if run.finished]
        if len(finished) < len(runs):
            print(f"left out: {len(runs) - len(finished)} runs that are not finished", file=sys.stderr)
        if not finished:
            raise ConfigError(f"there is no finished run below {', '.join(map(str, options.folders))}")
        curves = {
            _plain(name): learning_curve(group, metric=options.metric, part=options.part, against=options.against)
            for name, group in sorted(grouped(finished, options.by).items())
        }
        ylabel = f"{options.part} {options.metric.replace('_', ' ')}"
        figure = charts.learning_curves(
            curves, title=_plain(options.title), ylabel=_plain(ylabel), xlabel=options.against
        )
        print(charts.save(figure, options.out))
    except (TorchalError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _plain(text: str) -> str:
    """Return a text with no sign in it that would begin a formula."""
    return text.replace("$", r"\$")


def grouped(runs: Sequence[Run], by: Sequence[str]) -> dict[str, list[Run]]:
    """Return the runs by what their curve is called: the settings in `by`, and data and model where they differ.

    Raises:
        ConfigError: a run does not have one of the settings, or the runs of one curve differ in more than their seed.
    """
    settings = {id(run): _settings(run) for run in runs}
    differing = [
        name for name in ("data", "model") if name not in by and len({str(s.get(name)) for s in settings.values()}) > 1
    ]
    groups: dict[str, list[Run]] = {}
    for run in runs:
        own = settings[id(run)]
        for name in by:
            if name not in own:
                raise ConfigError(f"{run.folder} has no {name!r} to group by; it has {', '.join(own)}")
        label = ", ".join(
            [*(str(own[name]) for name in by), *(str(own.get(name, run.folder.name)) for name in differing)]
        )
        groups.setdefault(label, []).append(run)
    for label, group in groups.items():
        mixed = _mixed([settings[id(run)] for run in group])
        if mixed:
            raise ConfigError(f"the runs of {label!r} differ in {', '.join(mixed)}; name it by --by, or fewer folders")
    return groups


def _settings(run: Run) -> dict[str, Any]:
    """Return all settings of a run by their dotted names, and what its data, model and sampler are called."""
    names = run.config.get("names")
    return {**flattened(run.config), **(names if isinstance(names, Mapping) else {})}


def _mixed(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the settings in which runs differ, but for those that are their seed."""
    names = dict.fromkeys(name for own in settings for name in own)
    return [
        name
        for name in names
        if len({str(own.get(name)) for own in settings}) > 1
        and not all(own.get(name) == own.get("seed") for own in settings)
    ]


if __name__ == "__main__":
    sys.exit(main())
