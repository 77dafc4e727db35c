"""The gallery of strategies: a page for each name of `torchal.samplers.names()`, and one that shows all of them."""

from __future__ import annotations

import re
from dataclasses import MISSING, fields
from functools import cache
from pathlib import Path
from typing import NamedTuple

from make_pages.files import write_folder
from make_pages.strategy_needs import Needs, list_needs, needs_of, short_needs
from make_pages.strategy_notes import FAMILIES, Note, read_notes
from make_pages.strategy_pictures import (
    describe_picture,
    picture_caption,
    pictured_sampler,
    pictured_settings,
    write_pictures,
)
from make_pages.strategy_settings import kernels_of, prose, references_of, settings_of, source_of, summary
from torchal import samplers
from torchal.protocols import HasPosterior
from torchal.samplers import Sampler

NOTES = Path(__file__).parents[1] / "strategies" / "notes"

SOURCE_URL: str | None = None
"""Where the repository's files can be read, ending in a slash, once there is such a place."""

_OTHER = (
    "Not described yet",
    "Strategies without a note in `docs/strategies/notes`; their pages are made from the code.",
)


class Page(NamedTuple):
    """A strategy and what is known of it."""

    name: str
    sampler: Sampler
    needs: Needs
    note: Note | None

    @property
    def title(self) -> str:
        """The page's title."""
        return self.note.title if self.note else self.name.replace("_", " ").capitalize()

    @property
    def summary(self) -> str:
        """What it does, in a line."""
        return (self.note.summary if self.note else None) or summary(type(self.sampler).__doc__ or "")

    @property
    def family(self) -> str | None:
        """Its family, None without a note."""
        return self.note.family if self.note else None


def write_strategy_pages(docs: Path) -> None:
    """Write `strategies/NAME.md` for each strategy, `strategies/index.md` and the pictures of them.

    A file whose text is what it was stays as it is, so that little is built anew. A page whose strategy is gone is
    removed.

    Args:
        docs: the folder of the documentation.
    """
    folder = docs / "strategies"
    write_pictures(folder / "pictures", samplers.names())
    pages = strategy_pages(folder / "notes")
    texts = {page.name: page_text(page, [other for other in pages if other.family == page.family]) for page in pages}
    write_folder(folder, {**texts, "index": index_text(pages)}, suffix=".md")


@cache
def strategy_pages(notes: Path = NOTES) -> list[Page]:
    """Return every strategy by its name, with what is written of it in a folder."""
    found = read_notes(notes)
    return [_page(name, found.get(name)) for name in samplers.names()]


def _page(name: str, note: Note | None) -> Page:
    sampler = samplers.from_name(name)
    return Page(name, sampler, needs_of(sampler, pictured_sampler(name)), note)


def page_text(page: Page, family: list[Page]) -> str:
    """Return the page of a strategy, as MyST Markdown."""
    parts = [
        f"% Made by docs/make_pages/strategies.py; what is written by hand is in notes/{page.name}.md.",
        f"# {page.title}",
        page.summary,
        _picture(page),
        _body(page),
        "## Needs\n\n" + _bullets(_needs_lines(page)),
        "## Use it\n\n" + _use(page),
        "## Settings\n\n" + _settings(page),
        "## Reference\n\n" + _reference(page),
    ]
    others = [f"[{other.title}]({other.name}.md)" for other in family if other.name != page.name]
    if page.family is not None and others:
        parts.append(f"**{FAMILIES[page.family][0]}**, other strategies: {', '.join(others)}.")
    return "\n\n".join(parts) + "\n"


def _body(page: Page) -> str:
    if page.note:
        return _with_links(page.note.body, page.name)
    return f"## Idea\n\n{prose(type(page.sampler).__doc__ or '')}"


def _with_links(text: str, own: str = "") -> str:
    """Return a text with links where it names a strategy, a sampler or anything else of torchal as code."""

    def link(match: re.Match[str]) -> str:
        name = match[1]
        if name in samplers.names():
            return match[0] if name == own else f"[`{name}`]({name}.md)"
        if name.startswith("torchal."):
            return f"{{py:obj}}`{name}`"
        is_sampler = isinstance(getattr(samplers, name, None), type)
        return f"{{py:class}}`~torchal.samplers.{name}`" if is_sampler else match[0]

    return re.sub(r"(?<![}\[])`([\w.]+)`", link, text)


def _picture(page: Page) -> str:
    settings = pictured_settings(page.name)
    caption = picture_caption(settings)
    options = f":alt: {describe_picture(page.title)}\n:width: 100%\n:figclass: rounds"
    return f"```{{figure}} pictures/{page.name}.svg\n{options}\n\n{caption}\n```"


def _bullets(lines: list[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _needs_lines(page: Page) -> list[str]:
    lines = list_needs(page.needs)
    return [*lines, page.note.give] if page.note and page.note.give else lines


def _use(page: Page) -> str:
    """Return how it is asked in Python and on the command line."""
    draws = any(HasPosterior in models for models in page.needs.models)
    call, imported = _constructor(page)
    model = 'LogisticRegression(posterior="laplace")' if draws else "LogisticRegression()"
    validation = ", validation=(validation_inputs, validation_labels)" if page.needs.validation else ""
    python = (
        "from torchal import ActiveLearner, LogisticRegression, Pool\n"
        f"{imported}\n\n"
        "pool = Pool.unlabeled(inputs, n_classes=10)  # inputs: (N, ...), yours\n"
        f"learner = ActiveLearner({model}, {call}, pool{validation})\n"
        "rows = learner.ask(20)  # whose labels it wants\n"
        "learner.tell(rows, labels_of(rows))  # whoever knows them"
    )
    run = f"python -m experiments.run sampler={page.name}" + (" model.posterior=laplace" if draws else "")
    return f"```python\n{python}\n```\n\nAs an experiment, on handwritten digits:\n\n```bash\n{run}\n```"


def _constructor(page: Page) -> tuple[str, str]:
    """Return the expression that makes the sampler, and what it has to import."""
    name = type(page.sampler).__name__
    kind = type(page.sampler)
    if not _arguments_missing(kind) and settings_of(kind()) == settings_of(page.sampler):
        call = page.note.call if page.note else None
        return call or f"{name}()", f"from torchal.samplers import {name}"
    return f'from_name("{page.name}")', "from torchal.samplers import from_name"


def _arguments_missing(kind: type[Sampler]) -> bool:
    """Tell whether a sampler has settings without a default."""
    return any(field.init and field.default is field.default_factory is MISSING for field in fields(kind))  # type: ignore[arg-type]


def _settings(page: Page) -> str:
    settings = settings_of(page.sampler)
    if not settings:
        return "None."
    rows = "\n".join(f"| `{one.name}` | {_code(one.default)} | {_with_links(_cell(one.meaning))} |" for one in settings)
    return f"| name | default | meaning |\n|---|---|---|\n{rows}"


def _code(text: str) -> str:
    return f"`{_cell(text)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _reference(page: Page) -> str:
    kernels = kernels_of(page.sampler)
    lines = []
    if page.note:
        lines.append(f"{page.note.paper}." + (f" <{page.note.link}>" if page.note.link else ""))
    lines += [f"The code says: {_with_links(text)}" for text in references_of(page.sampler, kernels)]
    lines.append(f"Class: {{py:class}}`torchal.samplers.{type(page.sampler).__name__}`.")
    if kernels:
        lines.append("It binds " + ", ".join(f"{{py:func}}`torchal.functional.{name}`" for name in kernels) + ".")
    file = source_of(page.sampler)
    lines.append(f"Source: [`{file}`]({SOURCE_URL}{file})." if SOURCE_URL else f"Source: `{file}`.")
    return _bullets(lines)


def index_text(pages: list[Page]) -> str:
    """Return the page that shows all strategies by family."""
    parts = [
        "% Made by docs/make_pages/strategies.py.",
        "# Strategies",
        f"{len(pages)} ways to choose which rows to label. Each picture is the fifth round on the same points: dark "
        "points are labeled, rings are what the strategy picks next, and the background is what the model predicts, "
        "where the strategy looks at one. A page for each has more rounds, the formula, the cost, and when it fails.",
    ]
    for key in [*FAMILIES, None]:
        own = [page for page in pages if page.family == key]
        if own:
            heading, text = FAMILIES[key] if key else _OTHER
            parts += [f"## {heading}", text, _cards(own), _toctree(own)]
    return "\n\n".join(parts) + "\n"


def _cards(pages: list[Page]) -> str:
    cards = "\n\n".join(
        ":::{container} card-link\n"
        f"[![{page.title}: the picks of round 5](pictures/{page.name}_small.svg)]({page.name}.md)\n\n"
        f"**[{page.title}]({page.name}.md)**\n\n{page.summary}\n\n`{page.name}`: {short_needs(page.needs)}\n:::"
        for page in pages
    )
    return f"::::{{container}} cards strategies\n{cards}\n::::"


def _toctree(pages: list[Page]) -> str:
    return "```{toctree}\n:hidden:\n\n" + "\n".join(page.name for page in pages) + "\n```"
