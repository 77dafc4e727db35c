"""What `import torchal` costs on top of `import torch`, in new processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from benchmarks.harness import Row, compare


def rows(size: str, device: str) -> Iterator[Row]:  # noqa: ARG001 - every benchmark is called alike
    """Time both imports as whole processes; the difference is the cost."""

    def run(code: str) -> None:
        subprocess.run([sys.executable, "-c", code], check=True)

    yield from compare(
        "a process that imports",
        {"ours": lambda: run("import torch, torchal"), "torch alone": lambda: run("import torch")},
        repeats=9,
        device="cpu",
    )
