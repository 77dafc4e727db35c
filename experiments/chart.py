"""Draw learning curves from run folders: `python -m experiments.chart runs/digits-logistic --out chart.pdf`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from torchal import charts
from torchal.curves import learning_curve
from torchal.errors import ConfigError, TorchalError
from torchal.results import Run, find_runs


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the runs below some folders, group them by sampler, and write one chart."""
    parser = argparse.ArgumentParser(prog="python -m experiments.chart", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders with runs somewhere below them")
    parser.add_argument("--out", type=Path, default=Path("chart.png"), help="where to write: .png, .pdf or .svg")
    parser.add_argument("--metric", default="accuracy", help="accuracy, log_loss, or another that the runs recorded")
    parser.add_argument("--part", default="test", choices=["test", "validation"])
    parser.add_argument("--by", default="sampler", help="what a curve stands for: sampler, model or data")
    parser.add_argument("--title", default="")
    options = parser.parse_args(arguments)
    try:
        groups: dict[str, list[Run]] = {}
        for folder in options.folders:
            for run in find_runs(folder):
                groups.setdefault(_name(run, options.by), []).append(run)
        if not groups:
            raise ConfigError(f"there is no run below {', '.join(map(str, options.folders))}")
        curves = {
            name: learning_curve(runs, metric=options.metric, part=options.part)
            for name, runs in sorted(groups.items())
        }
        ylabel = f"{options.part} {options.metric.replace('_', ' ')}"
        figure = charts.learning_curves(curves, title=options.title, ylabel=ylabel)
        print(charts.save(figure, options.out))
    except TorchalError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _name(run: Run, by: str) -> str:
    """Return what a run is called in the legend; runs of a plain Trainer go by the settings it noted."""
    names = run.config.get("names", run.config)
    if by not in names:
        raise ConfigError(f"{run.folder} has no {by!r} to group by; it has {', '.join(names)}")
    return str(names[by])


if __name__ == "__main__":
    sys.exit(main())
