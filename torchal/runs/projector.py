"""The pool for TensorBoard's projector: features, what is known of each row, and small pictures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from torchal.errors import CapabilityError
from torchal.pool import interop
from torchal.pool.inputs import gather, have_distances
from torchal.pool.view import PoolView
from torchal.protocols import Inputs
from torchal.runs.learner import ActiveLearner
from torchal.runs.pictures import are_pictures, pictures_of, sprite

_MOST_VALUES = 1 << 25  # numbers of features that are read: 128 MiB in float32
_VALUES_AT_ONCE = 1 << 23
_ROWS_AT_ONCE = 512
_MOST_COLUMNS = 64  # that are written: wider features are projected on as many principal components
_SPRITE_SIDE = 32  # pixels of a picture; 5 000 of them are 2 272 pixels a side, and TensorBoard takes 8 192
_METADATA = ("row", "class", "predicted", "round", "picked_by")


def write_projector(
    folder: Path, learner: ActiveLearner, *, most_rows: int, image_shape: Sequence[int] | None = None
) -> int:
    """Write rows of the pool for the projector page of TensorBoard; return how many, 0 where they have no features.

    The features are those that samplers see (`PoolView.features`): the model's embedding, else the flattened inputs;
    of more than 64 columns the first 64 principal components. The rows are those that were bought, and others at
    random, the same in every call: `most_rows` in all, or as many as have 2^25 numbers, if these are fewer. Where not
    all that were bought have room, they are a random part too.

    Files: `projector/tensors.tsv`, `projector/metadata.tsv` with the row, its class where it was bought, what the model
    says, the round in which it was bought (-1: not) and by whom it was picked, `projector/sprite.png` where the rows
    are pictures, and `projector_config.pbtxt`.
    """
    pool, model = learner.pool, learner.model
    view = pool.view(model, generator=torch.Generator())
    if view.features_from == "inputs" and not have_distances(pool.inputs):
        return 0
    try:
        one = view.features_at(gather(pool.inputs, torch.zeros(1, dtype=torch.int64, device=pool.device)))
    except CapabilityError:  # a pipeline makes sparse rows, of texts for instance; only a row shows that
        return 0
    rows = _drawn(view, min(most_rows, max(1, _MOST_VALUES // one.shape[1])))
    features, codes = [], []
    for part in rows.split(_rows_at_once(pool.inputs)):
        some = gather(pool.inputs, part)
        features.append(view.features_at(some).detach().float().cpu())
        codes.append(interop.predictions(model, some).cpu())
    (folder / "projector").mkdir(parents=True, exist_ok=True)
    narrow = _narrow(torch.cat(features).numpy())
    line = "\t".join(["%.4g"] * narrow.shape[1])
    tensors = "".join(line % tuple(row) + "\n" for row in narrow.tolist())
    (folder / "projector" / "tensors.tsv").write_text(tensors, encoding="utf-8")
    said = learner.pool.labels.decode(torch.cat(codes))
    (folder / "projector" / "metadata.tsv").write_text(_metadata(learner, rows, said), encoding="utf-8")
    config = [
        'tensor_name: "pool"',
        'tensor_path: "projector/tensors.tsv"',
        'metadata_path: "projector/metadata.tsv"',
    ]
    if are_pictures(pool.inputs, image_shape):
        images = pictures_of(pool.inputs, rows, side=_SPRITE_SIDE, shape=image_shape)
        side = max(max(image.size) for image in images)
        (folder / "projector" / "sprite.png").write_bytes(sprite(images, side).content)
        size = f"single_image_dim: {side} single_image_dim: {side}"
        config.append(f'sprite {{ image_path: "projector/sprite.png" {size} }}')
    body = "".join(f"  {text}\n" for text in config)
    (folder / "projector_config.pbtxt").write_text(f"embeddings {{\n{body}}}\n", encoding="utf-8")
    return len(rows)


def _rows_at_once(inputs: Inputs) -> int:
    """Return of how many rows a copy may be made: few, where nobody knows how large they are."""
    shape = getattr(inputs, "shape", None)
    return max(1, _VALUES_AT_ONCE // max(1, math.prod(shape[1:]))) if shape is not None else _ROWS_AT_ONCE


def _drawn(view: PoolView, most: int) -> Tensor:
    """Return rows of the pool in ascending order: those that are labeled before all others, else at random."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(view), generator=generator)
    labeled = view.labeled.cpu()[order]
    chosen = torch.cat([order[labeled], order[~labeled]])[:most]
    return chosen.sort().values.to(view.labeled.device)


def _narrow(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return features of at most so many columns that the page can hold them, without values that are not finite."""
    features = np.nan_to_num(features, posinf=0.0, neginf=0.0)
    components = min(_MOST_COLUMNS, len(features))  # so few rows differ in no more directions
    if features.shape[1] <= components:
        return features
    from sklearn.utils.extmath import randomized_svd

    directions, sizes, _ = randomized_svd(features - features.mean(0), components, random_state=0)
    narrow: NDArray[np.float32] = directions * sizes
    return narrow


def _metadata(learner: ActiveLearner, rows: Tensor, said: object) -> str:
    """Return a table of the rows, tabs between its columns and no tabs or line breaks in them."""
    pool = learner.pool
    bought = {row: (result.round, result.picked_by) for result in learner.history for row in result.rows.tolist()}
    codes, labeled = pool.targets[rows], pool.labeled[rows].tolist()
    names = list(pool.labels.decode(codes.clamp(min=0).cpu()))
    lines = [_METADATA]
    predicted = [_word(one) for one in said]  # type: ignore[attr-defined]
    for row, name, is_bought, answer in zip(rows.tolist(), names, labeled, predicted, strict=True):
        number, by = bought.get(row, (-1, "start" if is_bought else "nobody"))
        lines.append((str(row), _word(name) if is_bought else "not bought", answer, str(number), by))
    return "".join("\t".join(line) + "\n" for line in lines)


def _word(value: object) -> str:
    text = str(int(value)) if isinstance(value, Tensor) else str(value)
    return " ".join(text.split()) or "?"
