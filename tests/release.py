"""Check what would be released: `make release-check`, or `python -m tests.release 3.11` for some versions of Python.

Builds the archive and the wheel, compares what is in them with the repository, has the README rendered as an index
would, installs the wheel into an empty environment of each Python that is at hand, and runs the README's five lines
there. What only a person can do is said at the end.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torchal

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13", "3.14")
_BESIDE_CODE = {"torchal/py.typed"}
_IN_ARCHIVE = {"LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "pyproject.toml", "setup.cfg", "setup.py"}


def check_version(version: str, *, changelog: str, citation: str, tags: dict[str, str], head: str) -> list[str]:
    """Return what is wrong with a version: it is told alike everywhere, and tagged once, on this commit.

    Args:
        version: of the package.
        changelog, citation: the texts of the two files.
        tags: the commit of each tag.
        head: the commit that is checked.
    """
    problems = []
    if not re.fullmatch(r"\d+\.\d+\.\d+((a|b|rc)\d+)?", version):
        problems.append(f"the version {version} is no version of three numbers")
    if f"version: {version}\n" not in citation:
        problems.append(f"CITATION.cff does not have version: {version}")
    sections = re.findall(r"^## \[?([^\]\s]+)", changelog, re.MULTILINE)
    tag = tags.get(f"v{version}")
    if tag is not None and tag != head:
        problems.append(f"v{version} is tagged already, on another commit ({tag[:8]}): raise torchal.__version__")
    if tag is not None and version not in sections:
        problems.append(f"v{version} is tagged, and CHANGELOG.md has no section {version}")
    if "Unreleased" not in sections and version not in sections:
        problems.append(f"CHANGELOG.md has neither a section Unreleased nor one {version}")
    return problems


def check_wheel(names: set[str], tracked: set[str]) -> list[str]:
    """Return what is wrong with the files of a wheel, given those of the repository."""
    wanted = {name for name in tracked if name.startswith("torchal/") and name.endswith(".py")} | _BESIDE_CODE
    found = {name for name in names if ".dist-info/" not in name}
    problems = [f"the wheel lacks {name}" for name in sorted(wanted - found)]
    return problems + [f"the wheel has {name}, which is not the package's" for name in sorted(found - wanted)]


def check_archive(names: set[str], tracked: set[str]) -> list[str]:
    """Return what is wrong with the files of a source archive, without the folder that they are in."""
    made = ("torchal.egg-info/", "PKG-INFO")
    package = {name for name in tracked if name.startswith("torchal/") and name.endswith(".py")}
    problems = [f"the archive lacks {name}" for name in sorted((package | _IN_ARCHIVE | _BESIDE_CODE) - names)]
    others = sorted(name for name in names - tracked if not name.startswith(made))
    return problems + [f"the archive has {name}, which is not in the repository" for name in others]


def build(folder: Path) -> tuple[Path, Path]:
    """Build the archive and the wheel from a clean copy of the repository's files; return their paths."""
    copy = folder / "source"
    for name in tracked_files():
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    _run([sys.executable, "-m", "build", "--outdir", str(folder / "dist"), str(copy)])
    return next((folder / "dist").glob("*.tar.gz")), next((folder / "dist").glob("*.whl"))


def tracked_files() -> set[str]:
    """Return the files of the repository."""
    return set(_run(["git", "ls-files"]).splitlines())


def tags() -> dict[str, str]:
    """Return the commit of each tag."""
    lines = _run(["git", "for-each-ref", "--format=%(refname:short) %(objectname) %(*objectname)", "refs/tags"])
    return {line.split()[0]: line.split()[-1] for line in lines.splitlines()}


def pythons(wanted: Sequence[str]) -> Iterator[tuple[str, str | None]]:
    """Yield each version of Python with its program; None where it is not at hand."""
    for version in wanted:
        program = shutil.which(f"python{version}")
        works = program is not None and subprocess.run([program, "--version"], check=False, capture_output=True)
        yield version, program if works and works.returncode == 0 else None


def check_install(wheel: Path, program: str, folder: Path) -> str:
    """Install a wheel into an empty environment, use it there, and return what it printed.

    Raises:
        subprocess.CalledProcessError: it cannot be installed, or not used.
    """
    environment = folder / "environment"
    _run([program, "-m", "venv", str(environment)])
    python = str(environment / "bin" / "python")
    try:
        constraints = ["--constraint", str(ROOT / "constraints.txt")]
        _run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *constraints, str(wheel)])
        _run([python, "-m", "pip", "check"])
        _run([str(environment / "bin" / "torchal"), "--help"], cwd=folder)
        lines = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
        return _run([python, "-W", "error", "-c", "\n".join(lines)], cwd=folder).strip()
    finally:
        shutil.rmtree(environment)


def _run(command: list[str], *, cwd: Path = ROOT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        print(done.stdout + done.stderr, file=sys.stderr)
        raise subprocess.CalledProcessError(done.returncode, command)
    return done.stdout


def main() -> int:
    """Check everything, and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", default=PYTHONS, help="of Python; those that are at hand unless given")
    options = parser.parse_args()
    texts = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("CHANGELOG.md", "CITATION.cff")}
    problems = check_version(
        torchal.__version__,
        changelog=texts["CHANGELOG.md"],
        citation=texts["CITATION.cff"],
        tags=tags(),
        head=_run(["git", "rev-parse", "HEAD"]).strip(),
    )
    with tempfile.TemporaryDirectory() as scratch:
        archive, wheel = build(Path(scratch))
        with tarfile.open(archive) as file:
            problems += check_archive({name.name.partition("/")[2] for name in file if name.isfile()}, tracked_files())
        with zipfile.ZipFile(wheel) as file:
            problems += check_wheel(set(file.namelist()), tracked_files())
        for path in (archive, wheel):
            print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")
        print(_run([sys.executable, "-m", "twine", "check", "--strict", str(archive), str(wheel)]).strip())
        for version, program in pythons(options.versions):
            if program is None:
                print(f"Python {version}: not at hand")
                continue
            started = time.perf_counter()
            try:
                told = check_install(wheel, program, Path(scratch))
            except subprocess.CalledProcessError as error:
                problems.append(f"Python {version}: {error}")
                continue
            print(f"Python {version}: installed and used in {time.perf_counter() - started:.0f} s: {told}")
    for problem in problems:
        print(f"problem: {problem}", file=sys.stderr)
    print(
        f"{len(problems)} problems. For a person: project_urls in setup.cfg and the address in CITATION.cff, once "
        f"there is one; the date of {torchal.__version__} in CHANGELOG.md; the tag v{torchal.__version__}; the upload."
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
