"""One picture for each strategy: which rows of the same pool it picks in rounds 1, 2 and 5, by the library itself."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

import torchal
from make_pages.plane import BATCH, HALF_HEIGHT, HALF_WIDTH, N_CLASSES, SQUARE, Snapshot, make_plane, play
from torchal import samplers
from torchal.samplers import Sampler
from torchal.study.looks import COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ROUNDS = (1, 2, 5)
_DPI = 150
_PALETTE = 128  # colours of a file: what is drawn has few, and each takes a byte of a point in place of four
_INK = "#20242b"
_MARKERS = ("o", "s", "^")  # a class is told by its shape too
_CLASS_COLOURS = tuple(COLOURS[place][0] for place in (0, 1, 2))
_HALF = (HALF_WIDTH, HALF_HEIGHT)
_ASKED, _FINER = (100, 70), 4  # places at which the model is asked, and how much finer the shades are
_TINT = 0.13  # how strong the colour of a class is where it is predicted


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
    "by_group": Pictured("groups= the squares that are drawn", _by_squares),
    "contrastive": Pictured("k=3", lambda: samplers.Contrastive(k=3)),
    "hierarchical_kmeans": Pictured("sizes=(24, 6)", lambda: samplers.HierarchicalKMeans(sizes=(24, 6))),
    "seals": Pictured("k=10", lambda: samplers.Seals(k=10)),
    "similar": Pictured("classes=(2,), that of the triangles", lambda: samplers.Similar(classes=(2,))),
    "sub_pool": Pictured("n_rows=40", lambda: samplers.SubPool(n_rows=40)),
    "switch": Pictured("after=20", lambda: samplers.Switch((samplers.TypiClust(), samplers.Margin()), after=20)),
    **{
        f"simulate_batch_{kind}": Pictured("n_sims=3, train_per_sim=3", _simulating(f"simulate_batch_{kind}"))
        for kind in ("best_sim", "frequency", "mixture")
    },
}


def pictured_settings(name: str) -> str | None:
    """Return the settings that the picture of a strategy was drawn with; None where they are the defaults.

    Example:
        >>> pictured_settings("sub_pool"), pictured_settings("margin")
        ('n_rows=40', None)
    """
    return PICTURED[name].text if name in PICTURED else None


def pictured_sampler(name: str) -> Sampler:
    """Return a new sampler as it is drawn."""
    return PICTURED[name].make() if name in PICTURED else samplers.from_name(name)


def play_strategy(name: str) -> list[Snapshot]:
    """Return the rounds that are drawn, those of `ROUNDS`, of a strategy by its name."""
    return [snapshot for snapshot in play(pictured_sampler(name), max(ROUNDS)) if snapshot.round in ROUNDS]


def write_pictures(folder: Path, names: Iterable[str]) -> None:
    """Write NAME.png, three rounds, and NAME_small.png, the last of them, for each strategy that has no fresh ones.

    A picture is fresh while nothing of the library, and nothing of what draws it, has changed; `made.json` in the
    folder says of which state each was made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    record = folder / "made.json"
    made: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
    state = _state_of_sources()
    for name in names:
        files = [folder / f"{name}.png", folder / f"{name}_small.png"]
        if made.get(name) == state and all(file.exists() for file in files):
            continue
        for file, data in zip(files, draw_strategy(name), strict=True):
            file.write_bytes(data)
        made[name] = state
        record.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")


def _state_of_sources() -> str:
    """Return a digest of all that a picture depends on: sources, and the versions of what they draw with."""
    import matplotlib

    package = Path(torchal.__file__).parent
    parts = ("samplers", "functional", "engine", "solvers", "pool", "runs", "models")
    sources = [source for part in parts for source in sorted((package / part).rglob("*.py"))]
    sources += [Path(__file__), Path(__file__).with_name("plane.py")]
    digest = hashlib.sha256(f"{matplotlib.__version__} {torch.__version__}".encode())
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def draw_strategy(name: str) -> tuple[bytes, bytes]:
    """Return two PNG files: the rounds `ROUNDS` side by side, and the last of them alone, smaller."""
    snapshots = play_strategy(name)
    sampler = pictured_sampler(name)
    draws_squares = isinstance(sampler, samplers.ByGroup)
    shaded = [bool(sampler.requires) or sampler.needs_model(len(snapshot.before)) for snapshot in snapshots]
    panels = list(zip(snapshots, shaded, strict=True))
    return (
        _as_png(panels, inches=(8.0, 2.1), squares=draws_squares),
        _as_png(panels[-1:], inches=(2.4, 1.65), squares=draws_squares, titles=False),
    )


def _as_png(
    panels: list[tuple[Snapshot, bool]], *, inches: tuple[float, float], squares: bool, titles: bool = True
) -> bytes:
    """Return a picture as a PNG file of few colours."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=inches, dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)  # never a window, whatever backend is set
    all_axes: Any = figure.subplots(1, len(panels), squeeze=False)
    for axes, (snapshot, shaded) in zip(all_axes[0], panels, strict=True):
        _draw_round(axes, snapshot, shaded=shaded, squares=squares)
        if titles:
            axes.set_title(f"round {snapshot.round}", fontsize=9, color=_INK, pad=3)
    top = 0.89 if titles else 0.99
    figure.subplots_adjust(left=0.006, right=0.994, bottom=0.015, top=top, wspace=0.03)
    canvas.draw()
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3])
    picture = picture.quantize(_PALETTE, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    file = io.BytesIO()
    picture.save(file, "PNG", optimize=True)
    return file.getvalue()


def _draw_round(axes: Axes, snapshot: Snapshot, *, shaded: bool, squares: bool) -> None:
    plane = make_plane()
    axes.set_xlim(-HALF_WIDTH, HALF_WIDTH)
    axes.set_ylim(-HALF_HEIGHT, HALF_HEIGHT)
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_color("#c9ced6")
    if shaded:
        _shade(axes, snapshot)
    if squares:
        _draw_squares(axes)
    is_labeled = torch.zeros(len(plane.truth), dtype=torch.bool)
    is_labeled[snapshot.before] = True
    is_picked = torch.zeros_like(is_labeled)
    is_picked[snapshot.picks] = True
    for label in range(N_CLASSES):
        own, marker, colour = plane.truth == label, _MARKERS[label], _CLASS_COLOURS[label]
        xs, ys = plane.inputs[own & ~is_labeled & ~is_picked].T.numpy()
        axes.scatter(xs, ys, s=9, marker=marker, color=colour, alpha=0.38, linewidths=0)
        xs, ys = plane.inputs[own & is_labeled].T.numpy()
        axes.scatter(xs, ys, s=15, marker=marker, color=_INK, linewidths=0)
        xs, ys = plane.inputs[own & is_picked].T.numpy()
        axes.scatter(xs, ys, s=86, marker="o", facecolor="white", edgecolor=_INK, linewidths=1.6, zorder=3)
        axes.scatter(xs, ys, s=26, marker=marker, color=colour, linewidths=0, zorder=4)


def _shade(axes: Axes, snapshot: Snapshot) -> None:
    """Shade the plane by the class that the model predicts."""
    axis = (torch.linspace(-half, half, n, dtype=torch.float64) for half, n in zip(_HALF, _ASKED, strict=True))
    places = torch.cartesian_prod(*axis)
    probabilities = torch.as_tensor(snapshot.model.predict_proba(places)).reshape(1, *_ASKED, -1).permute(0, 3, 2, 1)
    fine = interpolate(probabilities, scale_factor=_FINER, mode="bilinear", align_corners=True)[0]
    predicted = torch.as_tensor(snapshot.model.classes_)[fine.argmax(dim=0)]
    colours = torch.tensor([[int(colour[at : at + 2], 16) for at in (1, 3, 5)] for colour in _CLASS_COLOURS])
    tints = (255 - _TINT * (255 - colours)).to(torch.uint8)
    extent = (-HALF_WIDTH, HALF_WIDTH, -HALF_HEIGHT, HALF_HEIGHT)
    axes.imshow(
        tints[predicted].numpy(), extent=extent, origin="lower", interpolation="nearest", aspect="auto", zorder=0
    )


def _draw_squares(axes: Axes) -> None:
    for count in range(1, 1 + int(2 * HALF_WIDTH / SQUARE)):
        axes.axvline(count * SQUARE - HALF_WIDTH, color="#9aa2ae", linewidth=0.6, zorder=1)
    for count in range(1, 1 + int(2 * HALF_HEIGHT / SQUARE)):
        axes.axhline(count * SQUARE - HALF_HEIGHT, color="#9aa2ae", linewidth=0.6, zorder=1)


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
