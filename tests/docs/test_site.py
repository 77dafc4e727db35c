"""Formulas, links and weights of the site."""

import pytest
from make_pages import check_site, results
from make_pages.mathml import as_mathml
from sphinx.errors import SphinxError


@pytest.mark.parametrize(
    "latex", [r"\frac{a}{b}", r"\lVert x_i - x_j \rVert", r"\sum_{c=1}^{C} p_c \log p_c", "v_{t+1}"]
)
def test_a_formula_is_mathml(latex):
    element = as_mathml(latex, display=True)
    assert element.startswith("<math")
    assert 'display="block"' in element
    assert 'display="inline"' in as_mathml(latex, display=False)


def test_a_command_that_is_not_known_is_an_error():
    with pytest.raises(SphinxError, match="cannot be made MathML"):
        as_mathml(r"\mycommand{x}", display=False)


def page(text, folder, name="index.html"):
    (folder / name).write_text(f"<!doctype html><html><head></head><body>{text}</body></html>")
    return folder


def problems(folder):
    return check_site.check(folder.resolve())[0]


def test_a_site_whose_links_lead_somewhere_is_right(tmp_path):
    page('<p id="place"></p>', tmp_path, "other.html")
    (tmp_path / "picture.png").write_bytes(b"png")
    page('<a href="other.html#place">x</a> <a href="#">y</a> <img src="picture.png" alt="">', tmp_path)
    assert problems(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('<a href="nowhere.html">x</a>', "index.html: links to nowhere.html, which is not there"),
        ('<a href="#nowhere">x</a>', "index.html: links to #nowhere, and that page has no such place"),
        ('<img src="nowhere.png" alt="">', "which is not there"),
        ('<script src="https://elsewhere.example/x.js"></script>', "index.html: loads https://elsewhere.example/x.js"),
        ('<img src="data:image/png;base64,AA">', "index.html: an image without alt"),
    ],
)
def test_what_is_wrong_with_a_page_is_told(text, told, tmp_path):
    assert any(told in problem for problem in problems(page(text, tmp_path)))


def test_a_heavy_page_is_told(tmp_path):
    (tmp_path / "picture.png").write_bytes(bytes(check_site.MOST_BYTES))
    assert any("more than 500000" in told for told in problems(page('<img src="picture.png" alt="">', tmp_path)))


def test_texts_weigh_what_a_server_sends(tmp_path):
    page("word " * 200_000, tmp_path)
    found, weights = check_site.check(tmp_path.resolve())
    assert found == []
    assert weights[0][0] < 20_000


def test_every_measured_table_is_on_the_page(tmp_path):
    (tmp_path / "gpu-nvidia-h200-2026-11-27.md").write_text("| work |\n|---|\n")
    (tmp_path / "something_else.md").write_text("words")
    text = results.speed_page(tmp_path)
    assert text.index("## On a GPU: NVIDIA H200, 2026-11-27\n\n| work |") < text.index("## Something else\n\nwords")
