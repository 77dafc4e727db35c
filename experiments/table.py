"""Put what all runs below some folders came to into one table: `python -m experiments.table runs --out results.csv`."""

from __future__ import annotations

import argparse
import csv
import io
import math
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from torchal._records import differences, without, write_atomically
from torchal.errors import ConfigError, TorchalError
from torchal.runs.metrics import LOWER_IS_BETTER
from torchal.runs.results import Run, find_runs
from torchal.statistics import area_under_curve, compare
from torchal.study.reading import OF_EXPERIMENT, SEEDS


@dataclass(frozen=True)
class Line:
    """A sampler in an experiment: its runs, and how it compares with the baseline on the same seeds."""

    experiment: str
    """The folder of the runs: its name, or its whole path where another has the same name."""
    data: str
    model: str
    sampler: str
    runs: int
    labels: int
    metric: str
    """Of the test part: what the next two are of."""
    final: float
    area: float
    difference: float
    """Mean over the shared seeds of the areas, minus those of the baseline."""
    lower: float
    upper: float
    """Ends of Student's 95 % interval of the difference."""
    p: float
    """Of the paired t-test."""
    fewest: float
    """Labels that the class with the fewest has at the end, of all classes that any run of the experiment met."""
    seconds: float

    @property
    def verdict(self) -> int:
        """1 where the interval says that it is better than the baseline, -1 where worse, else 0."""
        above = int(self.lower > 0) - int(self.upper < 0)
        return -above if self.metric in LOWER_IS_BETTER else above


def main(arguments: Sequence[str] | None = None) -> int:
    """Read the finished runs below some folders; write a CSV file, and a table in Markdown to the terminal."""
    parser = argparse.ArgumentParser(prog="python -m experiments.table", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders with runs somewhere below them")
    parser.add_argument("--out", type=Path, help="where to write the CSV file")
    parser.add_argument("--baseline", default="uniform", help="the sampler that others are compared with")
    parser.add_argument("--metric", default="accuracy", help="of the test part, as balanced_accuracy")
    options = parser.parse_args(arguments)
    try:
        found = [run for folder in options.folders for run in find_runs(folder)]
        lines = list(compared(found, options.baseline, options.metric))
        if options.out:
            text = io.StringIO()
            writer = csv.writer(text, lineterminator="\n")
            names = [field.name for field in fields(Line)]
            writer.writerow(names)
            writer.writerows([_cell(getattr(line, name)) for name in names] for line in lines)
            write_atomically(options.out, text.getvalue().encode())
        print("\n".join(markdown(lines, options.baseline)))
    except (TorchalError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def compared(runs: Sequence[Run], baseline: str, metric: str = "accuracy") -> Iterator[Line]:
    """Return a line for each experiment folder and sampler that has finished runs.

    Raises:
        ConfigError: there is no finished run, or an experiment without one of the baseline, or with several settings;
            or a run that did not record the metric, or was not made by `experiments.run`.
    """
    experiments: dict[Path, dict[str, dict[int, Run]]] = {}
    for run in runs:
        if run.finished:
            samplers = experiments.setdefault(run.folder.parent.parent, {})
            name, seed = _name_and_seed(run)
            samplers.setdefault(name, {})[seed] = run
    if not experiments:
        raise ConfigError("there is no finished run to compare")
    named = Counter(folder.name for folder in experiments)
    for folder, samplers in experiments.items():
        _check_same_settings(folder, [run for by_seed in samplers.values() for run in by_seed.values()])
        if baseline not in samplers:
            raise ConfigError(f"{folder} has no finished run of {baseline}; it has {', '.join(samplers)}")
        areas = {
            name: {seed: area_under_curve(*run.curve(metric)) for seed, run in by_seed.items()}
            for name, by_seed in samplers.items()
        }
        counts = {name: [_label_counts(run) for run in by_seed.values()] for name, by_seed in samplers.items()}
        n_classes = max(len(found) for some in counts.values() for found in some)
        for name, by_seed in samplers.items():
            shared = sorted(by_seed.keys() & samplers[baseline].keys())
            pairs = ([areas[which][seed] for seed in shared] for which in (name, baseline))
            found = compare(*pairs)
            p = found["p"] if name != baseline else None
            own = list(by_seed.values())
            yield Line(
                experiment=folder.name if named[folder.name] == 1 else str(folder),
                data=own[0].config["names"]["data"],
                model=own[0].config["names"]["model"],
                sampler=name,
                runs=len(own),
                labels=own[0].rounds[-1].n_labeled,
                metric=metric,
                final=float(np.mean([run.rounds[-1].test[metric] for run in own])),
                area=float(np.mean(list(areas[name].values()))),
                difference=found["difference"],
                lower=math.nan if found["lower"] is None else found["lower"],
                upper=math.nan if found["upper"] is None else found["upper"],
                p=math.nan if p is None else p,
                fewest=float(np.mean([np.pad(c, (0, n_classes - len(c))).min() for c in counts[name]])),
                seconds=float(np.mean([run.seconds for run in own])),
            )


def _name_and_seed(run: Run) -> tuple[str, int]:
    names, seed = run.config.get("names"), run.config.get("seed")
    wanted = ("data", "model", "sampler")
    if not isinstance(names, dict) or not all(isinstance(names.get(name), str) for name in wanted):
        raise ConfigError(f"{run.folder} has no names of its data, model and sampler, got {names!r}")
    if not isinstance(seed, int):
        raise ConfigError(f"{run.folder} has the seed {seed!r}: runs are paired by whole numbers")
    return names["sampler"], seed


def _check_same_settings(folder: Path, runs: Sequence[Run]) -> None:
    """Require runs that differ in seed and sampler only.

    Raises:
        ConfigError: they have other settings too.
    """
    settings = [without({name: run.config.get(name) for name in OF_EXPERIMENT}, SEEDS) for run in runs]
    for others in settings[1:]:
        different = differences(settings[0], others)
        if different:
            raise ConfigError(f"{folder} holds runs of different experiments: {different}; give each another name=")


def _label_counts(run: Run) -> NDArray[np.int64]:
    """Return how many labels of each class a run has bought, up to the last class that it met."""
    labels = np.concatenate([result.labels.numpy() for result in run.rounds])
    return np.bincount(labels)


def markdown(lines: Sequence[Line], baseline: str) -> Iterator[str]:
    """Return a table of the differences in area, a row for each experiment and a column for each sampler.

    An experiment goes by its data set, and by its folder where others are of the same data set and model. Bold is
    better than the baseline, italic worse, by the 95 % interval. The last rows count both.
    """
    samplers = sorted({line.sampler for line in lines} - {baseline})
    cells = {(line.experiment, line.sampler): line for line in lines}
    yield f"| data | model | labels | {baseline} | {' | '.join(samplers)} |"
    yield "|---" * (4 + len(samplers)) + "|"
    alike = Counter((line.data, line.model) for line in lines if line.sampler == baseline)
    for base in (line for line in lines if line.sampler == baseline):
        shown = [_shown(cells.get((base.experiment, name))) for name in samplers]
        name = base.data if alike[base.data, base.model] == 1 else base.experiment
        yield f"| {name} | {base.model} | {base.labels} | {base.area:.4f} | {' | '.join(shown)} |"
    for what, verdict in (("better", 1), ("worse", -1)):
        counts = [sum(line.sampler == name and line.verdict == verdict for line in lines) for name in samplers]
        yield f"| {what} | | | | {' | '.join(map(str, counts))} |"


def _shown(line: Line | None) -> str:
    if line is None:
        return ""
    mark = {1: "**", -1: "*", 0: ""}[line.verdict]
    return f"{mark}{line.difference:+.4f}{mark}"


def _cell(value: object) -> object:
    return f"{value:.6g}" if isinstance(value, float) else value


if __name__ == "__main__":
    sys.exit(main())
