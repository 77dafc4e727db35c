"""Every public name has a page that says what each of its parameters is."""

import importlib
import inspect

import pytest
from make_pages import api
from make_pages.docstrings import as_plain_text
from make_pages.public_names import EVERYWHERE, MODULES, PublicName, names_in, public_names, undocumented

NAMES = public_names()
CLASSES = tuple(public.value for public in NAMES if public.kind == "class")


@pytest.mark.parametrize("public", NAMES, ids=lambda public: public.path)
def test_every_parameter_is_documented(public):
    assert undocumented(public, CLASSES) == []


@pytest.mark.parametrize(
    "public", [public for public in NAMES if public.kind != "data"], ids=lambda public: public.path
)
def test_every_name_says_what_it_is_in_a_sentence(public):
    assert api.first_line(public.value).endswith((".", ":", "?")), api.first_line(public.value)


def test_every_name_has_one_page(tmp_path):
    api.write_api_pages(tmp_path)
    pages = {page.stem if page.suffix != ".rst" else page.name.removesuffix(".rst") for page in tmp_path.glob("api/*")}
    assert pages == {"index"} | MODULES.keys() | {public.path for public in NAMES}
    index = (tmp_path / "api" / "index.rst").read_text()
    assert all(f":doc:`{module} <{module}>`" in index for module in MODULES)
    assert all(f"``{word}``" in index for word in EVERYWHERE)


def test_what_modules_offer_has_a_page():
    told = {public.path for public in NAMES} | {alias for public in NAMES for alias in public.aliases}
    for module in MODULES:
        for name in names_in(importlib.import_module(module)):
            assert f"{module}.{name}" in told or inspect.ismodule(getattr(importlib.import_module(module), name))
    assert {"torchal.PoolView", "torchal.functional.k_center_greedy", "torchal.report.write_page"} <= told
    assert {"torchal.pool.PoolView", "torchal.UNLABELED", "torchal.samplers.DEFAULT_MIXTURE"} <= told
    assert len(NAMES) > 300


def a_function(rows, weight, n_classes):
    """Take rows."""


A_CLASS = """
class AClass:
    '''A class.

    Args:
        size: of it.
    '''

    def __init__(self, size, colour):
        pass

    def paint(self, colour):
        '''Do it.'''
"""


def test_a_parameter_without_a_word_is_found():
    assert undocumented(PublicName("torchal.a_function", a_function, "function", ()), ()) == ["weight"]


def test_a_parameter_of_a_class_or_method_without_a_word_is_found(tmp_path, monkeypatch):
    (tmp_path / "torchal_made_up.py").write_text(A_CLASS)
    monkeypatch.syspath_prepend(tmp_path)
    made_up = importlib.import_module("torchal_made_up")
    found = undocumented(PublicName("torchal_made_up.AClass", made_up.AClass, "class", ()), ())
    assert found == ["colour", "paint(colour)"]


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        ("of |h|^2 and 2 * x", r"of \|h\|^2 and 2 \* x"),
        ("`a | b` and *args", r"`a | b` and \*args"),
        ("of `Module`s", r"of `Module`\ s"),
        ("coef_ is", r"coef\_ is"),
    ],
)
def test_prose_is_no_markup(doc, expected):
    assert as_plain_text([doc]) == [expected]


def test_examples_stay_as_they_are():
    lines = ["Take 2 * x.", "", "Example:", "    >>> f(*args) | 3"]
    assert as_plain_text(lines) == ["Take 2 \\* x.", "", *lines[2:]]


def test_several_entries_that_are_returned_are_a_list():
    lines = ["Do.", "", "Returns:", "    lower, upper: of it.", "        More.", "    p: of a test.", "", "Raises:"]
    assert as_plain_text(lines)[2] == "Returned:"
    assert as_plain_text(["Do.", "", "Returns:", "    indices (n,): of rows."])[2] == "Returns:"
