"""What can be said of the tutorials without running them: building the site does that, and fails where one fails."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from make_pages.tutorials import COLOURS, LONGEST_S, ORDER, keep_to_time, make_lighter
from PIL import Image

DOCS = Path(__file__).parents[2] / "docs"
SCRIPTS = sorted((DOCS / "tutorials").glob("plot_*.py"))
ABSOLUTE = re.compile(r"^(/(home|tmp|var|usr|root|mnt|data|opt|work|Users)/|[A-Z]:\\|~/)")
NETWORK = re.compile(r"\b(urllib|requests|httpx|urlopen|fetch_\w+|from_pretrained|load_dataset|hub)\b|download=True")

each = pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)


def code_of(script):
    """Return a script without its comments and its docstring: what is run."""
    tree = ast.parse(script.read_text(encoding="utf-8"), filename=str(script))
    return ast.Module(tree.body[1:], [])


def targets(text, role):
    return re.findall(rf":{role}:`~?([^`<]+)`", text)


@each
def test_it_is_a_script_with_a_title(script):
    text = script.read_text(encoding="utf-8")
    compile(text, str(script), "exec", dont_inherit=True)
    title, line, *_ = ast.get_docstring(ast.parse(text)).splitlines()
    assert title.strip()
    assert line == "=" * len(title)
    assert text.count("# %%") >= 4, "text and code take turns"


@each
def test_it_has_a_picture(script):
    assert any(isinstance(node, ast.Attribute) and node.attr == "show" for node in ast.walk(code_of(script)))


@each
def test_it_needs_no_network(script):
    assert NETWORK.findall(ast.unparse(code_of(script))) == []


@each
def test_it_writes_into_a_temporary_folder_and_clears_it_away(script):
    constants = [node.value for node in ast.walk(code_of(script)) if isinstance(node, ast.Constant)]
    assert [value for value in constants if isinstance(value, str) and ABSOLUTE.match(value)] == []
    code = ast.unparse(code_of(script))
    writes = re.search(r"\.(write_text|to_csv|save|export_asked)\(|np\.save|run_dir=|\bout=", code)
    assert bool(writes) <= ("TemporaryDirectory()" in code)
    assert code.count("TemporaryDirectory()") == code.count(".cleanup()")


@pytest.mark.parametrize("page", [*SCRIPTS, DOCS / "tutorials" / "GALLERY_HEADER.rst"], ids=lambda page: page.stem)
def test_links_lead_to_pages_that_are_written(page):
    for target in targets(page.read_text(encoding="utf-8"), "doc"):
        folder = DOCS if target.startswith("/") else DOCS / "tutorials"
        path = folder / target.lstrip("/")
        assert path.with_suffix(".md").is_file() or path.with_suffix(".py").is_file(), target


@each
def test_names_that_it_links_to_are_there(script):
    text = script.read_text(encoding="utf-8")
    for target in [name for role in ("class", "func", "meth") for name in targets(text, role)]:
        found, parts = importlib.import_module("torchal"), target.split(".")
        assert parts[0] == "torchal", target
        for depth, part in enumerate(parts[1:], 2):
            module = ".".join(parts[:depth])
            found = getattr(found, part) if hasattr(found, part) else importlib.import_module(module)


def test_all_have_their_place():
    assert sorted(ORDER) == [script.stem.removeprefix("plot_") for script in SCRIPTS]
    header = (DOCS / "tutorials" / "GALLERY_HEADER.rst").read_text(encoding="utf-8")
    assert targets(header, "doc") == [f"plot_{name}" for name in ORDER]


@pytest.mark.parametrize(("seconds", "n_warnings"), [(LONGEST_S - 1, 0), (LONGEST_S + 1, 1)])
def test_one_that_takes_too_long_is_a_warning(seconds, n_warnings, monkeypatch):
    clock, warned = iter([5.0, 5.0 + seconds]), []
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    monkeypatch.setattr("make_pages.tutorials.LOGGER.warning", lambda text, *args, **_: warned.append(text % args))
    for when in ("before", "after"):
        keep_to_time({}, "plot_texts.py", when)
    assert len(warned) == n_warnings
    assert all(f"plot_texts.py took {seconds:.0f} s" in text for text in warned)


def test_pictures_get_a_palette_once(tmp_path):
    path = tmp_path / "images" / "chart.png"
    path.parent.mkdir()
    shades = Image.radial_gradient("L")
    Image.merge("RGBA", [shades, shades.rotate(90), shades, Image.new("L", shades.size, 255)]).save(path)
    heavy = path.stat().st_size
    make_lighter(tmp_path)
    light = path.read_bytes()
    with Image.open(path) as picture:
        assert len(picture.getcolors()) <= COLOURS
        assert abs(picture.convert("L").getpixel((0, 0)) - shades.getpixel((0, 0))) < 16
    assert len(light) < heavy / 2
    make_lighter(tmp_path)
    assert path.read_bytes() == light
