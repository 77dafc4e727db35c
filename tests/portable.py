"""Run the tests as other machines would: `make test-portable`, or `python -m tests.portable avx2 one-thread`.

Each setting plays another CPU (fewer instructions, other kernels, other numbers of threads), another order, folder or
locale, or the oldest packages that setup.cfg allows. What passes here only, hangs on the last bits of one machine.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
OLDEST = ROOT / ".venv-oldest"


class Setting(NamedTuple):
    """How the tests are run."""

    environment: dict[str, str]
    folder: str = ""
    """The name of the folder of a copy of the checkout; this one unless given."""
    oldest: bool = False
    """Whether the packages are the oldest that are allowed."""


SETTINGS = {
    "as-it-is": Setting({}),
    "default": Setting({"ATEN_CPU_CAPABILITY": "default"}),
    "avx2": Setting({"ATEN_CPU_CAPABILITY": "avx2", "MKL_ENABLE_INSTRUCTIONS": "AVX2", "OPENBLAS_CORETYPE": "Haswell"}),
    "avx512": Setting({"ATEN_CPU_CAPABILITY": "avx512", "OPENBLAS_CORETYPE": "SkylakeX"}),
    "zen": Setting({"OPENBLAS_CORETYPE": "Zen"}),
    "one-thread": Setting({"OMP_NUM_THREADS": "1"}),
    "two-threads": Setting({"OMP_NUM_THREADS": "2"}),
    "four-threads": Setting({"OMP_NUM_THREADS": "4", "OMP_WAIT_POLICY": "PASSIVE"}),  # on fewer cores, waiting costs
    "shuffled": Setting({"TORCHAL_SHUFFLE": "1", "PYTHONHASHSEED": "random"}),
    "space": Setting({}, folder="a folder with a space"),
    "locale-c": Setting({"LC_ALL": "C", "LANG": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}),
    "oldest": Setting({}, oldest=True),
}
# What a machine or a shell may have set by itself must not reach the settings that leave it out.
_OURS = {name for setting in SETTINGS.values() for name in setting.environment}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tests in each setting and print a table; return 1 where one of them failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.portable", description=__doc__)
    parser.add_argument("settings", nargs="*", metavar="setting", help=f"all, unless named: {', '.join(SETTINGS)}")
    parser.add_argument("--tests", nargs="+", default=["tests", "torchal"], help="what to run")
    options = parser.parse_args(arguments)
    unknown = set(options.settings) - set(SETTINGS)
    if unknown:
        parser.error(f"unknown settings {', '.join(sorted(unknown))}; there are {', '.join(SETTINGS)}")
    failed = False
    print(f"{'setting':14} {'passed':>7} {'failed':>7} {'skipped':>8} {'seconds':>8}", flush=True)
    for name in options.settings or SETTINGS:
        began = time.monotonic()
        output, code = run(SETTINGS[name], options.tests)
        passed, broken, skipped = (count(output, *words) for words in (["passed"], ["failed", "error"], ["skipped"]))
        failed = failed or code != 0
        print(f"{name:14} {passed:7} {broken:7} {skipped:8} {time.monotonic() - began:8.0f}", flush=True)
        if code:
            print("\n".join(re.findall(r"^(?:FAILED|ERROR) .*", output, re.MULTILINE)) or output[-3000:], flush=True)
    return int(failed)


def run(setting: Setting, tests: Sequence[str]) -> tuple[str, int]:
    """Run the tests; return what they print, and their exit status."""
    environment = {name: value for name, value in os.environ.items() if name not in _OURS}
    environment |= setting.environment
    environment["TORCHAL_DATA"] = str((ROOT / os.environ.get("TORCHAL_DATA", "../shared/data")).resolve())
    python = str(OLDEST / "bin" / "python") if setting.oldest else sys.executable
    command = [python, "-m", "pytest", "-q", "--numprocesses", "auto", "--maxprocesses", "8", *tests]
    if setting.oldest:  # what these two look at is another environment
        told = ("constraints_are_what_is_installed", "torchvision_would_replace_it_which_is_why_it_is_an_extra")
        command += [word for name in told for word in ("--deselect", f"tests/test_install.py::test_{name}")]
    with tempfile.TemporaryDirectory() as elsewhere:
        folder = ROOT
        if setting.folder:
            folder = Path(elsewhere) / setting.folder
            listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
            kept = subprocess.run(listing, cwd=ROOT, capture_output=True, check=True)
            for part in filter(None, kept.stdout.decode().split("\0")):
                if (ROOT / part).exists():
                    (folder / part).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy(ROOT / part, folder / part)
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr, done.returncode


def count(output: str, *words: str) -> int:
    """Return the sum of the numbers that the closing line gives for some words."""
    closing = next((line for line in reversed(output.splitlines()) if re.search(r"\d+ \w+.* in [\d.]+s", line)), "")
    return sum(int(number) for word in words for number in re.findall(rf"(\d+) {word}s?\b", closing))


if __name__ == "__main__":
    sys.exit(main())
