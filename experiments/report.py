"""Report on runs, as a page, Markdown, CSV, LaTeX and charts: `python -m experiments.report runs`."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from experiments.examples import EXAMPLES, add_examples
from torchal._checks import check_whole
from torchal.errors import ConfigError, TorchalError
from torchal.study.answer import answer
from torchal.study.numbers import MINUS
from torchal.study.reading import Runs, read_runs
from torchal.study.report import FORMS, write_report
from torchal.study.summing_up import Wanted, sum_up

BASELINE = "uniform"


def main(arguments: Sequence[str] | None = None) -> int:
    """Read runs, sum them up, and write the report."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    try:
        only = _filters(options)
        check_whole("--examples", options.examples, least=0)
        if options.target is not None and not math.isfinite(options.target):
            raise ConfigError(f"--target must be a finite number, got {options.target}")
        runs = read_runs(options.folders, only=only)
        for problem in runs.problems:
            print(f"could not be read: {problem.folder}: {problem.why}", file=sys.stderr)
        if not runs.found:
            asked = " and ".join(f"{name}={','.join(values)}" for name, values in only.items())
            of = f" with {asked}" if asked else ""
            raise ConfigError(f"there is no run{of} below {', '.join(map(str, options.folders))}")
        metric, *others = options.metric or ["accuracy"]
        _check_named(runs, options)
        summary = sum_up(
            runs,
            Wanted(
                metric=metric,
                metrics=others if options.metric else None,
                baseline=options.baseline or BASELINE,
                target=options.target,
                title=options.title or ", ".join(folder.resolve().name for folder in options.folders),
                command=shlex.join(["python", "-m", "experiments.report", *given]),
            ),
        )
        if options.examples:
            summary = add_examples(summary, runs.found, rows=options.examples)
        out = options.out or (options.folders[0] / "report")
        print(answer(summary).replace(MINUS, "-"))
        for file in write_report(summary, out, forms=options.forms):
            print(file)
    except (TorchalError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _check_named(runs: Runs, options: argparse.Namespace) -> None:
    """Require the metrics and the baseline that the command names to be somewhere in the runs."""
    recorded = dict.fromkeys(name for one in runs.found for name in one.run.rounds[0].test)
    recorded |= dict.fromkeys(name for one in runs.found for result in one.run.rounds for name in result.pool)
    unknown = [name for name in options.metric or () if name not in recorded]
    if unknown and recorded:
        raise ConfigError(f"no run recorded {', '.join(unknown)} on the test part; they have {', '.join(recorded)}")
    samplers = sorted({one.sampler for one in runs.found})
    if options.baseline is not None and options.baseline not in samplers:
        raise ConfigError(f"no run has the sampler {options.baseline!r}; there are {', '.join(samplers)}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m experiments.report", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="folders with runs somewhere below them")
    parser.add_argument("--out", type=Path, help="the folder to write into; report, in the first folder, unless given")
    parser.add_argument("--forms", nargs="+", default=FORMS, choices=FORMS, help="what to write; all unless given")
    parser.add_argument("--metric", nargs="+", help="metrics of the test part, the main one first; all unless given")
    parser.add_argument("--baseline", help=f"the sampler that others are compared with ({BASELINE})")
    parser.add_argument(
        "--target", type=float, help="value of the metric to be reached; 90 %% of the full data's accuracy unless given"
    )
    parser.add_argument("--title", help="what stands above")
    parser.add_argument(
        "--examples",
        type=int,
        default=EXAMPLES,
        metavar="ROWS",
        help="rows shown of a sampler's first and last batch (8)",
    )
    filters = parser.add_argument_group("which runs", "values may have * and ?, and be several apart by commas")
    for name in ("data", "model", "sampler", "noise", "standardize"):
        filters.add_argument(f"--{name}", help=f"only runs of this {name}")
    filters.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="SETTING=VALUE",
        help="only runs with a setting, as schedule.batch_size=20",
    )
    return parser


def _filters(options: argparse.Namespace) -> dict[str, list[str]]:
    """Return the values of each setting that runs must have."""
    wanted = {name: getattr(options, name) for name in ("data", "model", "sampler", "noise", "standardize")}
    for text in options.only:
        name, equals, values = text.partition("=")
        if not equals:
            raise ConfigError(f"--only is given as SETTING=VALUE, got {text!r}")
        wanted[name] = values
    return {name: values.split(",") for name, values in wanted.items() if values is not None}


if __name__ == "__main__":
    sys.exit(main())
