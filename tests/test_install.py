"""`pip install .` leaves somebody's torch alone, and `make` installs a pair that fits."""

import os
import re
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


@pytest.fixture
def older_torch(tmp_path):
    """Return an environment in which pip sees this one's packages, but an older torch."""
    info = tmp_path / "torch-2.6.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: torch\nVersion: 2.6.0\n")
    (info / "INSTALLER").write_text("pip\n")
    (info / "RECORD").write_text("")
    # what this machine tells pip about other sources does not count
    return {**os.environ, "PYTHONPATH": str(tmp_path), "PIP_CONFIG_FILE": os.devnull, "PIP_FIND_LINKS": ""}


def dry_run(what, environment):
    # No index: whatever is not there already makes pip fail, and nothing is asked of the network.
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--no-index", "--no-build-isolation"]
    return subprocess.run([*command, what], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def test_an_older_torch_stays(older_torch):
    done = dry_run(".", older_torch)
    assert done.returncode == 0, done.stderr
    assert re.search(r"Requirement already satisfied: torch>=2\.6 .*\(2\.6\.0\)", done.stdout)
    assert re.search(r"Would install torchal-\S+$", done.stdout.strip())


def test_torchvision_would_replace_it_which_is_why_it_is_an_extra(older_torch):
    done = dry_run(".[vision]", older_torch)
    assert done.returncode != 0
    assert "torchal[vision]" in done.stderr
    assert "torchvision" in done.stderr
    assert "conflicting dependencies" in done.stderr


def test_torch_and_torchvision_are_a_pair():
    needed = next(Requirement(need) for need in requires("torchvision") if Requirement(need).name == "torch")
    assert needed.specifier.contains(version("torch"))
    import torchvision  # beside a torch of another build this fails

    assert torchvision.extension._has_ops()


def test_constraints_are_what_is_installed():
    lines = [line.split("#")[0].strip() for line in (ROOT / "constraints.txt").read_text().splitlines()]
    checked = 0
    for line in filter(None, lines):
        pin, _, marker = line.partition(";")
        if marker and not Marker(marker).evaluate():
            continue
        name, wanted = re.split("={2,3}", pin.strip())
        try:
            assert version(name) == wanted
            checked += 1
        except ModuleNotFoundError:
            assert name in ("faiss-gpu", "faiss-cpu", "skorch")  # one of two; and only for benchmarks
    assert checked > 10
