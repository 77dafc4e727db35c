"""One picture for each strategy: which rows of the same pool it picks in rounds 1, 2 and 5, by the library itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import torch

import torchal
from make_pages.files import write_if_new
from make_pages.plane import BATCH, Snapshot, make_plane, play
from make_pages.plane_drawing import draw_rounds
from torchal import samplers
from torchal.samplers import Sampler

ROUNDS = (1, 2, 5)


class Pictured(NamedTuple):
    """A sampler as it is drawn, where its default settings are for a pool of another size, or lack what it needs."""

    text: str
    make: Callable[[], Sampler]


def _by_squares() -> Sampler:
    return samplers.ByGroup(groups=make_plane().groups)


def _simulating(name: str) -> Callable[[], Sampler]:
    def make() -> Sampler:
        sampler = samplers.from_name(name)
        assert isinstance(sampler, samplers.SimulateBatch)
        sampler.n_sims, sampler.train_per_sim = 3, 3
        return sampler

    return make


PICTURED: dict[str, Pictured] = {
    "by_group": Pictured("the squares as its groups", _by_squares),
    "contrastive": Pictured("`k=3`", lambda: samplers.Contrastive(k=3)),
    "hierarchical_kmeans": Pictured("`sizes=(24, 6)`", lambda: samplers.HierarchicalKMeans(sizes=(24, 6))),
    "seals": Pictured("`k=10`", lambda: samplers.Seals(k=10)),
    "similar": Pictured("`classes=(2,)`, that of the triangles", lambda: samplers.Similar(classes=(2,))),
    "sub_pool": Pictured("`n_rows=40`", lambda: samplers.SubPool(n_rows=40)),
    "switch": Pictured("`after=20`", lambda: samplers.Switch((samplers.TypiClust(), samplers.Margin()), after=20)),
    **{
        f"simulate_batch_{kind}": Pictured("`n_sims=3, train_per_sim=3`", _simulating(f"simulate_batch_{kind}"))
        for kind in ("best_sim", "frequency", "mixture")
    },
}


def pictured_settings(name: str) -> str | None:
    """Return the settings that the picture of a strategy was drawn with; None where they are the defaults.

    Example:
        >>> pictured_settings("sub_pool"), pictured_settings("margin")
        ('`n_rows=40`', None)
    """
    return PICTURED[name].text if name in PICTURED else None


def pictured_sampler(name: str) -> Sampler:
    """Return a new sampler as it is drawn."""
    return PICTURED[name].make() if name in PICTURED else samplers.from_name(name)


def play_strategy(name: str) -> list[Snapshot]:
    """Return the rounds that are drawn, those of `ROUNDS`, of a strategy by its name."""
    return [snapshot for snapshot in play(pictured_sampler(name), max(ROUNDS)) if snapshot.round in ROUNDS]


def write_pictures(folder: Path, names: Iterable[str]) -> None:
    """Write NAME.svg, three rounds, and NAME_small.svg, the last of them, for each strategy that has no fresh ones.

    A picture is fresh while nothing of the library, and nothing of what draws it, has changed; `made.json` in the
    folder says of which state each was made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "made.json"
    made: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
    state = _state_of_sources()
    for name in names:
        files = [folder / f"{name}.svg", folder / f"{name}_small.svg"]
        if made.get(name) == state and all(file.exists() for file in files):
            continue
        for file, text in zip(files, draw_strategy(name), strict=True):
            write_if_new(file, text)
        made[name] = state
        record.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")


def _state_of_sources() -> str:
    """Return a digest of all that a picture depends on."""
    package = Path(torchal.__file__).parent
    parts = ("samplers", "functional", "engine", "solvers", "pool", "runs", "models")
    sources = [*sorted(package.glob("*.py")), package / "study" / "looks.py"]
    sources += [source for part in parts for source in sorted((package / part).rglob("*.py"))]
    sources += [Path(__file__).with_name(name) for name in ("plane.py", "plane_drawing.py", "strategy_pictures.py")]
    digest = hashlib.sha256(torch.__version__.encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def draw_strategy(name: str) -> tuple[str, str]:
    """Return two SVG files: the rounds `ROUNDS` side by side, and the last of them alone."""
    snapshots, sampler = play_strategy(name), pictured_sampler(name)
    shaded = [bool(sampler.requires) or sampler.needs_model(len(snapshot.before)) for snapshot in snapshots]
    squares = isinstance(sampler, samplers.ByGroup)
    return (
        draw_rounds(snapshots, shaded=shaded, squares=squares),
        draw_rounds(snapshots[-1:], shaded=shaded[-1:], squares=squares, titles=False),
    )


def describe_picture(title: str) -> str:
    """Return the text that stands for a picture where it cannot be seen.

    Example:
        >>> describe_picture("Margin sampling")
        'Margin sampling: the 6 points picked in rounds 1, 2 and 5 from 257 points of three classes in a plane'
    """
    rounds = ", ".join(map(str, ROUNDS[:-1])) + f" and {ROUNDS[-1]}"
    n_points = len(make_plane().truth)
    return f"{title}: the {BATCH} points picked in rounds {rounds} from {n_points} points of three classes in a plane"


def picture_caption(settings: str | None = None) -> str:
    """Return what a picture shows, in words, with the settings that it was drawn with, if these are no defaults."""
    n_points, drawn = len(make_plane().truth), f" Drawn with {settings}." if settings else ""
    return (
        f"The same {n_points} points, start set, model and seed for every strategy. Colour and shape are a point's "
        "class, which no strategy sees before the point is labeled. Dark points are labeled, rings are the "
        f"{BATCH} picks of the round. The background is the class that the model predicts, where the strategy looks "
        f"at a model.{drawn}"
    )
