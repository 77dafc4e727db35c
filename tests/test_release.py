"""What is released has all that it should, and nothing else."""

from pathlib import Path

import pytest

import torchal
from tests import release

ROOT = Path(__file__).parents[1]
CHANGELOG = "# Changelog\n\n## Unreleased\n\n## 0.1.0 - 2030-01-01\n"
CITATION = "title: torchal\nversion: 0.2.0\n"
TRACKED = {"torchal/__init__.py", "torchal/py.typed", "tests/test_a.py", *release._IN_ARCHIVE}


def problems(version="0.2.0", changelog=CHANGELOG, citation=CITATION, tags=None):
    return release.check_version(version, changelog=changelog, citation=citation, tags=tags or {}, head="abc")


def test_a_version_that_is_told_alike_everywhere_is_right():
    assert problems() == []
    assert problems(tags={"v0.2.0": "abc", "v0.1.0": "def"}, changelog=CHANGELOG.replace("0.1.0", "0.2.0")) == []


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"version": "0.2"}, "the version 0.2 is no version of three numbers"),
        ({"citation": "version: 0.1.0\n"}, "CITATION.cff does not have version: 0.2.0"),
        ({"tags": {"v0.2.0": "def"}}, "v0.2.0 is tagged already, on another commit (def)"),
        ({"tags": {"v0.2.0": "abc"}}, "v0.2.0 is tagged, and CHANGELOG.md has no section 0.2.0"),
        ({"changelog": "## 0.1.0\n"}, "CHANGELOG.md has neither a section Unreleased nor one 0.2.0"),
    ],
)
def test_what_is_wrong_with_a_version_is_told(settings, told):
    assert any(problem.startswith(told) for problem in problems(**settings))


def test_the_files_of_this_version_agree():
    changelog, citation = ((ROOT / name).read_text() for name in ("CHANGELOG.md", "CITATION.cff"))
    assert problems(torchal.__version__, changelog, citation) == []


def test_a_wheel_has_the_package_and_nothing_else():
    whole = {"torchal/__init__.py", "torchal/py.typed", "torchal-0.2.0.dist-info/METADATA"}
    assert release.check_wheel(whole, TRACKED) == []
    assert release.check_wheel(whole - {"torchal/py.typed"}, TRACKED) == ["the wheel lacks torchal/py.typed"]
    more = release.check_wheel({*whole, "tests/test_a.py"}, TRACKED)
    assert more == ["the wheel has tests/test_a.py, which is not the package's"]


def test_an_archive_has_the_package_and_its_papers():
    whole = {
        "torchal/__init__.py",
        "torchal/py.typed",
        "PKG-INFO",
        "torchal.egg-info/SOURCES.txt",
        *release._IN_ARCHIVE,
    }
    assert release.check_archive(whole, TRACKED) == []
    assert release.check_archive(whole - {"LICENSE"}, TRACKED) == ["the archive lacks LICENSE"]
    assert release.check_archive({*whole, "notes.txt"}, TRACKED) == [
        "the archive has notes.txt, which is not in the repository"
    ]


def test_the_package_says_that_it_has_types():
    assert (ROOT / "torchal" / "py.typed").is_file()


def test_a_python_that_is_not_there_is_no_program():
    assert list(release.pythons(["9.9"])) == [("9.9", None)]
