import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("TORCHAL_DATA", ROOT / "../shared/data")) / "fashion-mnist"
SCRIPT = ROOT / "examples" / "fashion_mnist.py"
needs_files = pytest.mark.skipif(
    not DATA.exists(), reason=f"no Fashion-MNIST in {DATA}; TORCHAL_DATA names another folder"
)


def run(*arguments):
    command = [sys.executable, "-W", "error", str(SCRIPT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_files
def test_buys_a_hundred_labels_a_round_and_learns():
    done = run("--data", str(DATA), "--pool", "600", "--test", "300", "--rounds", "3", "--epochs", "10")
    assert done.returncode == 0, done.stderr
    rounds = re.findall(r"^(\d+) labels: (0\.\d+) of the test images are right$", done.stdout, re.MULTILINE)
    assert [int(n) for n, _ in rounds] == [100, 200, 300]
    accuracies = [float(accuracy) for _, accuracy in rounds]
    assert accuracies[-1] > max(0.5, accuracies[0])  # 0.63; fewer steps would hang on rounding


def test_says_how_to_get_the_files(tmp_path):
    done = run("--data", str(tmp_path / "nowhere"))
    assert done.returncode != 0
    assert "download=True has torchvision fetch Fashion-MNIST into it" in done.stderr


def test_the_guide_shows_its_lines():
    page = (ROOT / "docs" / "guides" / "choose_rows.md").read_text()
    shown = re.search(r"```python\n(outputs = torchal\.embed.*?)```", page, re.DOTALL)
    lines = [line.partition("#")[0].strip() for line in shown.group(1).splitlines()]
    assert len(lines) == 4
    script = [line.strip() for line in SCRIPT.read_text().splitlines()]
    assert [line for line in lines if line not in script] == []
