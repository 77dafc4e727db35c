"""The command line: `torchal query` asks for rows to label, `torchal suggest` names strategies."""

from __future__ import annotations

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torchal
from torchal.errors import DataError, TorchalError

_TOOLS = ("label-studio", "coco", "cvat", "argilla", "hugging-face")  # as in tools.py, which help must not load
_MINUTES = 100  # seconds from which they are told in minutes
_EPILOG = """examples:
  torchal query --features embeddings.npy --labels labels.csv --strategy badge --budget 500 --out next.csv
  torchal query --table customers.csv --target churn --model random_forest --strategy margin --budget 50 --out next.csv
  torchal query --texts messages.csv --column text --labels labels.csv --budget 100 --out next.csv
  torchal query --images photos/ --weights backbone.pt2 --strategy typiclust --budget 200 --out next.csv
  torchal suggest --features embeddings.npy --labels labels.csv --budget 500
  torchrun --nproc-per-node 8 -m torchal query --shards embedded/ --strategy k_center --budget 10000 --out next.csv

Beside next.csv lie next.png, a map of the pool, next.html, a page to look at, and next.torchal, a folder that
remembers: fill in the column label of next.csv, and the same command goes on. Of --shards there is next.csv alone.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    try:
        return int(options.run(options, given))
    except TorchalError as error:
        print(f"torchal: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"torchal: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("torchal: stopped; nothing of this call is kept", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="torchal", description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"torchal {torchal.__version__}")
    commands = parser.add_subparsers(required=True, metavar="{query,suggest}")
    query = commands.add_parser(
        "query",
        help="ask for the rows to label next",
        description="Ask for the rows of a pool to label next.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_source(query, shards=True)
    query.add_argument("--strategy", help="by name, as margin, badge or typiclust; margin unless given")
    query.add_argument("--out", type=Path, required=True, help="the table to write, .csv or .parquet")
    query.add_argument(
        "--classes", type=_listed, help="all classes, apart by commas; learned from the labels unless given"
    )
    query.add_argument("--correct", action="store_true", help="labels that differ from those told before correct them")
    query.add_argument("--coordinates", type=Path, help="where rows lie in the map, (N, 2) in a .npy file")
    query.add_argument("--stop", action="store_true", help="say whether it is time to stop")
    query.add_argument("--format", choices=_TOOLS, help="also write the rows for a labeling tool, beside the table")
    query.set_defaults(run=_query)
    suggest = commands.add_parser(
        "suggest",
        help="name strategies that suit a pool",
        description="Name strategies that suit a pool, with the reason and the cost.",
    )
    _add_source(suggest)
    suggest.set_defaults(run=_suggest)
    return parser


def _add_source(parser: argparse.ArgumentParser, *, shards: bool = False) -> None:
    rows = parser.add_argument_group("rows").add_mutually_exclusive_group(required=True)
    rows.add_argument("--features", type=Path, help="a .npy file of numbers, (N, D), as a network's embeddings")
    rows.add_argument("--table", type=Path, help="a CSV or Parquet file, whose columns are the features")
    rows.add_argument("--texts", type=Path, help="a CSV file with a column of texts, or a .txt file of lines")
    rows.add_argument("--images", type=Path, help="a folder of image files")
    if shards:
        rows.add_argument(
            "--shards", type=Path, help="a folder of numbered .npy files of features, read by many processes"
        )
    more = parser.add_argument_group("about the rows")
    more.add_argument("--id", help="the column of the ids; one named id unless given, else rows are numbers from 0")
    more.add_argument("--ids", type=Path, help="ids of the features: a .txt file of lines, or a CSV file")
    more.add_argument("--target", help="the column of the labels of a table or of texts, blank where there is none yet")
    more.add_argument(
        "--columns", type=_listed, help="the columns of a table to look at, apart by commas; all unless given"
    )
    more.add_argument("--categorical", type=_listed, help="columns of a table whose numbers are names, apart by commas")
    more.add_argument("--missing", type=_listed, help="words of a table that stand for a blank, apart by commas")
    more.add_argument("--column", help="the column with the texts")
    more.add_argument("--encoding", default="utf-8", help="of the table's or the texts' file (utf-8), as cp1252")
    more.add_argument(
        "--weights",
        type=Path,
        help="the network of the images: of torch.export, TorchScript, or the weights of --backbone",
    )
    more.add_argument("--backbone", help="one of torchvision's networks, as resnet18, whose weights --weights has")
    more.add_argument("--size", type=_whole, default=224, help="pixels that images are scaled to (224)")
    more.add_argument(
        "--normalize",
        choices=["imagenet", "none"],
        help="how pixels from 0 to 1 are scaled: to ImageNet's mean and deviation, for torchvision's networks, unless "
        "given; or not",
    )
    parser.add_argument(
        "--labels",
        type=Path,
        nargs="+",
        default=[],
        help="files with the labels so far: CSV or Parquet with the columns id and label, or an export of a tool",
    )
    parser.add_argument("--label", default="label", help="the column of the labels in these (label)")
    parser.add_argument(
        "--model", default="logistic", help="the classifier: logistic unless given, or random_forest, ..."
    )
    budget, none = (_whole, "") if not shards else (_count, "; 0 only takes labels in")
    parser.add_argument("--budget", type=budget, required=True, help=f"how many rows to ask for{none}")
    parser.add_argument("--seed", type=int, default=0, help="all randomness follows from it (0)")


def _query(options: argparse.Namespace, given: Sequence[str]) -> int:
    if options.shards is not None:
        return _query_shards(options)
    from torchal.command.memory import locked
    from torchal.command.query import Request, query
    from torchal.command.sources import read_coordinates
    from torchal.command.tools import write_for

    request = Request(
        budget=options.budget,
        out=options.out,
        strategy=options.strategy,
        model=options.model,
        seed=options.seed,
        classes=options.classes,
        correct=options.correct,
        stop=options.stop,
        command=given,
    )
    request.title = next(str(path) for path in _sources_of(options).values())
    with locked(request.folder):
        answers = _answers(options)
        source = _source(options, request.folder)
        if options.coordinates is not None:
            request.coordinates = read_coordinates(options.coordinates, n_rows=len(source))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            told = query(source, answers, request)
        if options.format and told.questions:
            told.files += write_for(options.format, told.questions, options.out, classes=told.classes)
    for line in told.notes:
        print(line)
    for text in [*told.warnings, *(str(one.message) for one in caught if issubclass(one.category, UserWarning))]:
        print(f"Mind: {text}")
    print("Wrote " + ", ".join(str(file) for file in told.files) + ".")
    return 0


def _query_shards(options: argparse.Namespace) -> int:
    from torchal.command.shards import ShardedRequest, query_shards
    from torchal.errors import ConfigError

    others = ("classes", "correct", "coordinates", "stop", "format", "ids", "target", "columns", "column")
    for name in (*others, "weights", "backbone", "normalize"):
        if getattr(options, name):
            raise ConfigError(f"--{name} is not for --shards, of which only the table is written")
    if not options.budget:
        raise ConfigError("--budget 0 takes labels in, and of --shards only the table is kept: give them by --labels")
    settings = {"strategy": options.strategy} if options.strategy else {}
    request = ShardedRequest(
        options.shards, options.budget, options.out, seed=options.seed, id_column=options.id, **settings
    )
    for line in query_shards(request, _answers(options, of_out=False)):
        print(line)
    return 0


def _suggest(options: argparse.Namespace, given: Sequence[str]) -> int:  # noqa: ARG001 - as _query is called
    from torchal.command.labels import labels_of
    from torchal.command.suggest import suggest

    source = _source(options, Path(".torchal"))
    labels = labels_of(source, _answers(options), None)
    for rank, found in enumerate(suggest(source, labels, options.budget, model=options.model, seed=options.seed), 1):
        cost = (
            "could not be tried"
            if found.seconds is None
            else f"about {found.seconds:.1f} s"
            if found.seconds < 100
            else f"about {found.seconds / 60:.0f} min"
        )
        print(f"{rank}. {found.strategy} ({cost}): {found.reason}.")
    return 0


def _source(options: argparse.Namespace, folder: Path) -> Any:
    from torchal.command import sources
    from torchal.errors import ConfigError

    kind = next(iter(_sources_of(options)))
    belong = {
        "ids": "features",
        "columns": "table",
        "categorical": "table",
        "missing": "table",
        "column": "texts",
        "weights": "images",
        "backbone": "images",
        "normalize": "images",
    }
    if options.target is not None and kind not in ("table", "texts"):
        raise ConfigError(f"--target is about --table and --texts, and the rows are --{kind}")
    for name, owner in belong.items():
        if getattr(options, name) is not None and owner != kind:
            raise ConfigError(f"--{name} is about --{owner}, and the rows are --{kind}")
    if kind == "features":
        return sources.read_features(options.features, ids=options.ids, id_column=options.id)
    if kind == "table":
        return sources.read_table(
            options.table,
            target=options.target,
            id_column=options.id,
            columns=options.columns,
            categorical=options.categorical or (),
            missing=options.missing or (),
            encoding=options.encoding,
        )
    if kind == "texts":
        settings = {"column": options.column, "target": options.target, "id_column": options.id}
        return sources.read_texts(options.texts, encoding=options.encoding, **settings)
    if options.weights is None:
        raise ConfigError("--images needs --weights, the network that makes features of them")
    return sources.read_images(
        options.images,
        weights=options.weights,
        backbone=options.backbone,
        size=options.size,
        normalize=options.normalize or "imagenet",
        cache=folder,
    )


def _answers(options: argparse.Namespace, *, of_out: bool = True) -> Any:
    """Return what all files with labels say, and that to be written if it is there; None where there are none."""
    from torchal.command.tools import read_labels
    from torchal.exchange.answers import Answers

    columns = {"id_column": options.id or "id", "label_column": options.label}
    found = [read_labels(path, **columns) for path in options.labels]
    out = getattr(options, "out", None)
    if of_out and out is not None and out.exists():  # filled in, it is not to be lost
        try:
            read_labels(out, id_column="id", label_column="picked_by")  # a table of labels alone has no such column
            found.append(read_labels(out, id_column="id", label_column="label"))
        except DataError as error:
            raise DataError(
                f"{out} is there already, and no answer of this command, or cannot be read: it is left as it is; name "
                f"another by --out, and give its labels by --labels\n{error}"
            ) from error
    if not found:
        return None
    return Answers(
        [name for one in found for name in one.ids],
        [label for one in found for label in one.labels],
        [who for one in found for who in one.by],
        [skip for one in found for skip in one.skipped],
    )


def _sources_of(options: argparse.Namespace) -> dict[str, Path]:
    """Return which rows are wanted: one kind, and where they are."""
    kinds = ("features", "table", "texts", "images")
    return {kind: getattr(options, kind) for kind in kinds if getattr(options, kind) is not None}


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _whole(text: str, least: int = 1) -> int:
    value = int(text)
    if value < least:
        raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
    return value


def _count(text: str) -> int:
    return _whole(text, least=0)


if __name__ == "__main__":
    sys.exit(main())
