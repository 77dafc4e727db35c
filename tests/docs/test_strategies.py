"""The gallery of strategies: each has a note, a page that code makes, and a picture of what it does pick."""

import doctest
import importlib
import re
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
import yaml
from make_pages import strategies, strategy_pictures
from make_pages.mathml import as_mathml
from make_pages.plane import BATCH, PlaneModel, make_plane
from make_pages.plane_drawing import HEIGHT, WIDTH
from make_pages.strategy_needs import list_needs, needs_of, short_needs
from make_pages.strategy_notes import FAMILIES, SECTIONS, read_note
from make_pages.strategy_pictures import ROUNDS, draw_strategy, pictured_sampler, play_strategy
from make_pages.strategy_settings import kernels_of, settings_of

import torchal
from torchal import functional, samplers
from torchal.errors import DataError
from torchal.protocols import HasDecisionFunction, HasPosterior, HasProbabilities

ROOT = Path(__file__).parents[2]
NOTES = ROOT / "docs" / "strategies" / "notes"
NAMES = samplers.names()


def needs(name):
    return needs_of(samplers.from_name(name), pictured_sampler(name))


@pytest.fixture(scope="module")
def pages():
    return {page.name: page for page in strategies.strategy_pages()}


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_has_a_note(name):
    file = NOTES / f"{name}.md"
    assert file.exists(), f"write docs/strategies/notes/{name}.md, as the notes beside it"
    note = read_note(file)
    assert tuple(note.sections) == SECTIONS
    assert all(len(text.split()) >= 8 for heading, text in note.sections.items() if heading != "Formula")
    assert note.link is None or re.match(r"https://(doi\.org/10\.|arxiv\.org/abs/)", note.link)
    for link in re.findall(r"\]\(\.\./([^)#]+)\)", note.body):
        assert (ROOT / "docs" / link).exists(), link


@pytest.mark.parametrize("name", NAMES)
def test_formulas_become_mathml(name):
    body = read_note(NOTES / f"{name}.md").body
    blocks = re.findall(r"```\{math\}\n(.*?)\n```", body, flags=re.DOTALL)
    assert len(blocks) == 1
    for formula in [*blocks, *re.findall(r"\{math\}`([^`]*)`", body)]:
        words = re.sub("<[^>]*>", "", as_mathml(formula, display=True))
        assert "*" not in words  # \operatorname* comes out as a star
        assert "$" not in formula
    assert "$" not in body


def test_notes_and_settings_of_pictures_are_of_strategies_that_there_are():
    assert {file.stem for file in NOTES.glob("*.md")} <= set(NAMES)
    assert strategy_pictures.PICTURED.keys() <= set(NAMES)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("# A strategy\n", "must begin with title, family, paper"),
        ("---\ntitle: A\nfamily: density\n---\nbody", "must begin with"),
        ("---\ntitle: A\nfamily: density\npaper: B\nauthor: C\n---\nbody", "author"),
        ("---\ntitle: A\nfamily: odd\npaper: B\n---\nbody", "got 'odd'"),
    ],
)
def test_a_note_that_says_nothing_of_itself_is_refused(tmp_path, text, says):
    (tmp_path / "x.md").write_text(text)
    with pytest.raises(DataError, match=says):
        read_note(tmp_path / "x.md")


@pytest.mark.parametrize("name", NAMES)
def test_pages_say_what_there_is_to_know(pages, name):
    page = pages[name]
    text = strategies.page_text(page, [other for other in pages.values() if other.family == page.family])
    headings = re.findall(r"^## (.*)$", text, flags=re.MULTILINE)
    assert headings == [*SECTIONS, "Needs", "Use it", "Settings", "Reference"]
    for setting in settings_of(page.sampler):
        assert re.search(rf"^\| `{setting.name}` \| `.+` \| \S.* \|$", text, flags=re.MULTILINE), setting.name
    assert f"sampler={name}" in text
    assert f"{{py:class}}`torchal.samplers.{type(page.sampler).__name__}`" in text
    assert all(f"{{py:func}}`torchal.functional.{kernel}`" in text for kernel in kernels_of(page.sampler))
    assert re.search(rf"pictures/{name}\.svg\n:alt: \S", text)
    assert page.note.paper in text
    assert (ROOT / re.search(r"Source: `(.+?)`", text)[1]).is_file()


def test_pages_link_to_what_they_name(pages):
    text = strategies.page_text(pages["bald"], [pages["bald"], pages["epig"]])
    assert "[`batch_bald`](batch_bald.md) and [`power_bald`](power_bald.md)" in " ".join(text.split())
    assert "other strategies: [EPIG](epig.md)." in text
    assert "(bald.md)" not in text
    named = strategies._with_links("`Margin` of `torchal.functional.margin` with `k` and {math}`entropy`")
    assert named == (
        "{py:class}`~torchal.samplers.Margin` of {py:obj}`torchal.functional.margin` with `k` and {math}`entropy`"
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_lines_to_use_it_work(pages, name):
    said = strategies.page_text(pages[name], [])
    python, command = (re.search(rf"```{kind}\n(.*?)```", said, flags=re.DOTALL)[1] for kind in ("python", "bash"))
    inputs = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(80) % 10
    told = {"inputs": inputs, "groups": torch.arange(80) // 4, "labels_of": lambda rows: labels[rows]}
    exec(python, told | {"validation_inputs": inputs[:9], "validation_labels": labels[:9]})
    assert (call := pages[name].note.call) is None or call in python
    conf = ROOT / "experiments" / "conf"
    assert (conf / "sampler" / f"{name}.yaml").is_file()
    settings = [word.split("=")[0].split(".") for word in command.split() if word.startswith("model.")]
    assert all(key in yaml.safe_load((conf / model / "logistic.yaml").read_text()) for model, key in settings)


def test_the_gallery_shows_all(pages):
    text = strategies.index_text(list(pages.values()))
    places = [text.index(f"## {heading}\n\n{said}") for heading, said in FAMILIES.values()]
    assert places == sorted(places)
    assert "Not described yet" not in text
    for name, page in pages.items():
        assert f"[![{page.title}: the picks of round 5](pictures/{name}_small.svg)]({name}.md)" in text
        assert f"{page.summary}\n\n`{name}`: {short_needs(page.needs)}\n" in text
        assert re.search(rf"```{{toctree}}\n:hidden:\n\n([\w\n]*\n)?{name}\n", text)


def test_needs_are_what_strategies_accept():
    margin, bald, typical = needs("margin"), needs("bald"), needs("typiclust")
    assert set(margin.models) == {frozenset({HasDecisionFunction}), frozenset({HasProbabilities})}
    assert bald.models == [frozenset({HasPosterior})]
    assert (margin.from_labels, typical.from_labels) == (0, None)
    assert "features" in typical.reads
    assert "features" not in margin.reads
    assert needs("graph_density").reads == {"flat_inputs"}
    assert needs("switch").from_labels == 50
    assert [needs(name).clones for name in ("simulate_batch_frequency", "margin")] == [True, False]
    assert [needs(name).learns for name in ("graph_density", "mixture", "bandit_discrete")] == [True, False, True]
    bandit = needs("bandit_discrete")
    assert (bandit.validation, bandit.waits) == (True, True)
    assert any("validation part" in line for line in list_needs(bandit))
    assert list_needs(typical)[0] == "No model and no label: it can pick the very first batch."
    assert list_needs(needs("uncertainty_herding"))[0].startswith("No model and no label for the first batch. Later: a")


def first_view(sampler_name):
    plane = make_plane()
    labeled = torch.zeros(len(plane.truth), dtype=torch.bool)
    labeled[plane.start] = True
    model = PlaneModel().fit(plane.inputs[plane.start], plane.truth[plane.start])
    return plane, labeled, model, play_strategy(sampler_name)[0]


def test_a_picture_is_of_the_picks_of_margin():
    plane, labeled, model, snapshot = first_view("margin")
    two_best = model.decision_function(plane.inputs).topk(2, dim=1).values
    gaps = (two_best[:, 0] - two_best[:, 1]).masked_fill(labeled, torch.inf)
    assert snapshot.picks.equal(gaps.argsort()[:BATCH])
    assert snapshot.before.equal(plane.start)


def test_a_picture_is_of_the_picks_of_k_center():
    plane, labeled, model, snapshot = first_view("k_center")
    wanted = functional.k_center_greedy(model.transform(plane.inputs), BATCH, labeled=labeled)
    assert snapshot.picks.equal(wanted.indices)
    assert snapshot.round == ROUNDS[0] == 1


def test_rings_stand_where_the_picks_are():
    drawn, small = draw_strategy("uniform")
    assert (drawn, small) == draw_strategy("uniform")
    plane, last = make_plane(), play_strategy("uniform")[-1]
    rings = ElementTree.fromstring(small).findall(".//{http://www.w3.org/2000/svg}circle")
    found = torch.tensor([[float(ring.get("cx")), float(ring.get("cy"))] for ring in rings])
    places = plane.inputs[last.picks] * torch.tensor([WIDTH / 6.4, -HEIGHT / 4.4])
    assert torch.allclose(found, (places + torch.tensor([WIDTH / 2, HEIGHT / 2])).float(), atol=0.501)
    assert [f">round {number}<" in drawn for number in (1, 2, 3, 5)] == [True, True, False, True]
    assert len(ElementTree.fromstring(drawn).findall(".//{http://www.w3.org/2000/svg}circle")) == 3 * BATCH
    assert len(drawn) < 45_000


def test_the_background_is_there_where_a_model_is_read():
    typical_then_margin, none = draw_strategy("switch")[0], draw_strategy("uniform")[0]
    assert typical_then_margin.count('fill-rule="evenodd"') == 2  # two regions on the first's, in round 5 alone
    assert none.count('fill-rule="evenodd"') == 0


@dataclass(frozen=True)
class EveryOther(samplers.Sampler):
    """Picks every other row.

    Not a good idea.

    Args:
        step: how far it goes
            from row to row.
    """

    reads_model = False
    step: int = 2

    def select(self, view, n):
        rows = view.candidates.nonzero().squeeze(1)[:: self.step][:n]
        return torchal.Selection(rows, torch.zeros(n))


def test_a_new_strategy_has_a_page_and_a_picture(monkeypatch, tmp_path):
    monkeypatch.setattr(samplers, "_BY_NAME", {"every_other": EveryOther, "uniform": samplers.Uniform})
    notes = tmp_path / "strategies" / "notes"
    notes.mkdir(parents=True)
    (notes / "uniform.md").write_text((NOTES / "uniform.md").read_text())
    (tmp_path / "strategies" / "gone.md").write_text("a strategy of before")
    strategies.write_strategy_pages(tmp_path)
    made = {file.relative_to(tmp_path / "strategies").as_posix() for file in (tmp_path / "strategies").rglob("*.*")}
    pictures = {f"pictures/{name}{kind}.svg" for name in ("every_other", "uniform") for kind in ("", "_small")}
    assert made == {"index.md", "every_other.md", "uniform.md", "notes/uniform.md", "pictures/made.json", *pictures}
    page = (tmp_path / "strategies" / "every_other.md").read_text()
    assert "# Every other\n\nPicks every other row.\n" in page
    assert "Not a good idea." in page
    assert "| `step` | `2` | how far it goes from row to row. |" in page
    index = (tmp_path / "strategies" / "index.md").read_text()
    assert index.index("Not described yet") < index.index("[Every other](every_other.md)")

    # nothing is drawn again, and nothing written, while nothing has changed
    times = {file: file.stat().st_mtime_ns for file in (tmp_path / "strategies").rglob("*.*")}
    monkeypatch.setattr(strategy_pictures, "draw_strategy", lambda name: pytest.fail(f"drew {name} again"))
    strategies.write_strategy_pages(tmp_path)
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "strategies").rglob("*.*")} == times


def test_a_picture_is_drawn_again_when_a_source_has_changed(monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(strategy_pictures, "draw_strategy", lambda name: drawn.append(name) or ("<svg/>", "<svg/>"))
    monkeypatch.setattr(strategy_pictures, "_state_of_sources", lambda: "one")
    strategy_pictures.write_pictures(tmp_path, ["margin"])
    strategy_pictures.write_pictures(tmp_path, ["margin", "uniform"])
    monkeypatch.setattr(strategy_pictures, "_state_of_sources", lambda: "two")
    strategy_pictures.write_pictures(tmp_path, ["margin"])
    (tmp_path / "margin_small.svg").unlink()
    strategy_pictures.write_pictures(tmp_path, ["margin"])
    assert drawn == ["margin", "uniform", "margin", "margin"]


@pytest.mark.parametrize(
    "module", ["plane", "strategy_needs", "strategy_notes", "strategy_pictures", "strategy_settings"]
)
def test_examples_in_docstrings(module):
    assert doctest.testmod(importlib.import_module(f"make_pages.{module}")).failed == 0
