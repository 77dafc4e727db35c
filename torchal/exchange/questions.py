"""A row that is asked for, with what is known of it, for files and pages that people read."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Question:
    """A row whose label is wanted.

    Attributes:
        id: what the row is called where it came from.
        rank: its place in the order of picks, from 1.
        score: how much it is wanted, higher is more; None where nobody scored it, as where rows were drawn at random.
        picked_by: the strategy that named it.
        nearest_id: the labeled row that lies nearest.
        nearest_label: that row's label.
        distance: how far that is, in the space of the features.
        represents: for how many rows of the pool it stands, itself among them.
        predicted: the label that the model would give it.
        probability: how sure the model is of that, from 0 to 1.
        text: what is to be read, where the row is a text.
        image: the file of the picture, where it is one.
        x, y: where it lies in a map of the pool.

    Example:
        >>> Question(id="a7", rank=1, score=0.25, picked_by="Margin").label is None
        True
    """

    id: str
    rank: int
    score: float | None
    picked_by: str
    nearest_id: str | None = None
    nearest_label: str | None = None
    distance: float | None = None
    represents: int | None = None
    predicted: str | None = None
    probability: float | None = None
    text: str | None = None
    image: str | None = None
    x: float | None = None
    y: float | None = None
    label: str | None = None
    """What a person answered; None until then."""
