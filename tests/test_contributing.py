"""The examples of CONTRIBUTING.md work as they stand there."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Return a copy of the checkout with every example applied."""
    folder = tmp_path_factory.mktemp("contributing") / "checkout"
    folder.mkdir()
    for part in ("torchal", "experiments", "tests", "setup.cfg"):
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy
        copy(ROOT / part, folder / part)
    blocks = BLOCK.findall((ROOT / "CONTRIBUTING.md").read_text())
    written = [path for kind, path, _ in blocks if path and kind != "diff"]
    assert len(written) == 10
    for kind, path, text in blocks:
        if kind == "diff":
            # `git apply` outside a repository, so that it does not look at the one around
            subprocess.run(["git", "apply", "-"], input=text, text=True, cwd=folder, check=True, env=apart(folder))
        elif path:
            assert not (folder / path).exists(), f"{path} is there already: choose another example"
            (folder / path).write_text(text)
    return folder, blocks


def apart(folder):
    return {**os.environ, "PYTHONPATH": str(folder), "GIT_CEILING_DIRECTORIES": str(folder.parent)}


def run(folder, *command):
    return subprocess.run(command, cwd=folder, env=apart(folder), capture_output=True, text=True, check=False)


def test_the_new_strategy_and_data_set_pass_the_tests(checkout):
    folder, _ = checkout
    parts = [f"tests/samplers/test_{name}.py" for name in ("samplers", "confidence_ratio", "epsilon_greedy")]
    parts += ["torchal/functional/confidence_ratio.py", "torchal/data/moons.py"]
    chosen = ["-k", "confidence_ratio or epsilon_greedy or moons or agree"]
    done = run(folder, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen, *parts)
    assert done.returncode == 0, done.stdout
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= 27


def test_the_command_runs_all_three(checkout, tmp_path):
    folder, blocks = checkout
    command = next(text for kind, _, text in blocks if kind == "bash").strip()
    words = [sys.executable, *shlex.split(command)[1:-1], f"runs={tmp_path}", "progress=false", "-m"]
    done = run(folder, *words)
    assert done.returncode == 0, done.stderr
    for sampler in ("confidence_ratio", "epsilon_greedy"):
        assert re.search(rf"^{sampler} +2 ", done.stdout, re.MULTILINE)
    assert list((tmp_path / "moons-random_forest,schedule.budget=100").glob("*/seed=*/rounds.jsonl"))
