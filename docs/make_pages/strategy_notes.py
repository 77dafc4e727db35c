"""What people wrote of the strategies, one file each: `docs/strategies/notes/NAME.md`."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import yaml

from torchal.errors import DataError

FAMILIES: dict[str, tuple[str, str]] = {
    "baseline": (
        "The baseline",
        "What every other strategy has to beat, on your data and with your model.",
    ),
    "uncertainty": (
        "Uncertainty",
        "Ask where the model's own answer is least sure. Each row is scored by itself, in one pass, and all that is "
        "needed is a model that gives probabilities or decision values.",
    ),
    "posterior": (
        "Posterior draws and committees",
        "Ask where several plausible models contradict each other: an ensemble, a network with dropout, or a Gaussian "
        "around the last layer's weights.",
    ),
    "gradients": (
        "Gradients and expected effects",
        "Ask for the labels that would change the model most, or leave it with the least error, seen from its last "
        "layer.",
    ),
    "diverse": (
        "Unsure and spread out",
        "Take the rows that the model is unsure of, and of those some that are unlike each other, so that a batch "
        "does not ask the same question many times.",
    ),
    "coverage": (
        "Coverage",
        "Pick rows such that every row of the pool has a labeled one near it. These look at features alone, so they "
        "can pick the very first batch.",
    ),
    "density": (
        "Density and clusters",
        "Ask where many rows lie, since a label there speaks for all of them.",
    ),
    "targeted": (
        "Aimed at classes, groups or neighbourhoods",
        "Say which rows matter: rare classes, equal shares of classes, whole groups, or what lies beside known cases.",
    ),
    "composed": (
        "Strategies of strategies",
        "Make a batch of several strategies' picks, change from one to another, or learn which of them pays.",
    ),
}
"""Key: heading and what strategies of the family have in common, in the order of the gallery."""

SECTIONS = ("Idea", "Formula", "Cost", "When it fails")
_REQUIRED = ("title", "family", "paper")
_KEYS = (*_REQUIRED, "link", "summary", "give", "call")


class Note(NamedTuple):
    """What is said of a strategy by hand.

    Attributes:
        title: of the page.
        family: a key of `FAMILIES`.
        paper: authors, title, venue and year.
        link: to the paper, a DOI or arXiv address; None where none is sure.
        summary: one line for the gallery; that of the class unless given.
        give: what a user has to give for it to be what its name says, as the groups of rows.
        call: the sampler as it is made with that; with its defaults unless given.
        body: the sections `SECTIONS`, as Markdown.
    """

    title: str
    family: str
    paper: str
    link: str | None
    summary: str | None
    give: str | None
    call: str | None
    body: str

    @property
    def sections(self) -> dict[str, str]:
        """The text under each heading."""
        parts = ("\n" + self.body).split("\n## ")[1:]
        return {heading.strip(): text.strip() for heading, _, text in (part.partition("\n") for part in parts)}


def read_note(file: Path) -> Note:
    """Return a note.

    Raises:
        DataError: it does not begin with its title, family and paper, or says something unknown of itself.
    """
    empty, _, rest = file.read_text(encoding="utf-8").partition("---\n")
    head, mark, body = rest.partition("\n---\n")
    told = yaml.safe_load(head) if not empty and mark else None
    if not isinstance(told, dict) or not set(_REQUIRED) <= set(told) <= set(_KEYS):
        raise DataError(f"{file.name} must begin with {', '.join(_REQUIRED)} between two lines of ---, got {told!r}")
    if told["family"] not in FAMILIES:
        raise DataError(f"{file.name}: family must be one of {', '.join(FAMILIES)}, got {told['family']!r}")
    said = {key: None if told.get(key) is None else str(told[key]) for key in _KEYS}
    return Note(**said, body=body.strip())  # type: ignore[arg-type]


def read_notes(folder: Path) -> dict[str, Note]:
    """Return the notes of a folder by the name of the strategy."""
    return {file.stem: read_note(file) for file in sorted(folder.glob("*.md"))}
