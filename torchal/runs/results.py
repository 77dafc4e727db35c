"""What a run leaves behind: its rounds, its folder on disk, and learning curves over several runs."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from torchal._records import as_plain, as_safe_bytes, differences, write_atomically
from torchal.errors import ConfigError, RunError
from torchal.pool.round_result import RoundResult

AXES = ("labels", "cost", "seconds")
"""What a learning curve can be drawn against."""


@dataclass(frozen=True, eq=False)
class Run:
    """One run as its folder tells it.

    Attributes:
        config: as it was made with.
        rounds: in their order, the start set first.
        finished: whether it came to its end.
    """

    folder: Path
    config: dict[str, Any]
    rounds: list[RoundResult]
    finished: bool
    sampler_state: dict[str, Any] = field(default_factory=dict, repr=False)
    """What the sampler had learned by the end, for `Sampler.load_state_dict`."""

    def curve(
        self, metric: str = "accuracy", part: str = "test", *, against: str = "labels"
    ) -> tuple[list[float], list[float]]:
        """Return the numbers of labels and the metric's value at each, round by round.

        Args:
            metric: its name.
            part: test or validation; or pool, for what was watched of it (`ActiveLearner.watch`), which the first
                rounds may not have.
            against: labels; or cost, of all labels so far; or seconds, of all rounds so far.

        Raises:
            ConfigError: the run did not record this metric on this part; the message lists what it did. Or `against` is
                none of these.
        """
        kept = [number for number, result in enumerate(self.rounds) if part != "pool" or metric in result.pool]
        records = [getattr(self.rounds[number], part) for number in kept]
        if not records or any(metric not in record for record in records):
            have = (
                ", ".join(name for name in records[0] if all(name in r for r in records))
                if records
                else "no such round"
            )
            raise ConfigError(f"{self.folder} has no {part} {metric!r}; it has {have or f'no {part} part'}")
        if against not in AXES:
            raise ConfigError(f"a curve is drawn against {', '.join(AXES)}; got {against!r}")
        axis: list[float]
        if against == "seconds":
            axis = list(itertools.accumulate(sum(result.seconds.values()) for result in self.rounds))
        else:
            axis = [result.cost if against == "cost" else result.n_labeled for result in self.rounds]
        return [axis[number] for number in kept], [record[metric] for record in records]

    @property
    def seconds(self) -> float:
        """Seconds spent in all phases of all rounds."""
        return sum(sum(result.seconds.values()) for result in self.rounds)


class RunFolder:
    """The folder of one run: who may write to it, and what is in it.

    `rounds.jsonl` grows by one line a round. `checkpoint.pt` is replaced as a whole and says how many of these lines
    count: a line after them belongs to a round that was cut off, and is written again. It also has a digest of those
    that count, so that a line that was changed later is found.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._rounds = self.path / "rounds.jsonl"
        self._checkpoint = self.path / "checkpoint.pt"
        self._config = self.path / "config.yaml"
        self._digest = hashlib.sha256()  # of the lines that this process has kept and written

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the folder for this process; the lock ends with the process, however it ends.

        Raises:
            RunError: another process holds it, or it cannot be written.
        """
        from filelock import FileLock, Timeout

        with self.reported():
            self.path.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.path / "lock", timeout=0)
            try:
                lock.acquire()
            except Timeout:
                raise RunError(f"{self.path} is in use by another process") from None
        try:
            with self.reported():
                os.utime(self.path / "lock")  # tells a sweep which folders it used
            yield
        finally:
            lock.release()

    def open(self, config: Mapping[str, Any], environment: Mapping[str, Any]) -> None:
        """Write what the run is; where the folder has a run already, require that it is the same.

        Args:
            config: what the run is, in plain values.
            environment: what it is made with, as `environment` says.

        Raises:
            ConfigError: the folder's run has another config; the message names the differences.
        """
        plain = as_plain(config)
        if self._config.exists():
            different = differences(self._read_config(), plain)
            if different:
                raise ConfigError(
                    f"{self.path} holds a run with another config: {different}. "
                    "Choose another folder, or delete this one"
                )
            return
        if self._rounds.exists() or self._checkpoint.exists():
            raise RunError(f"{self.path} is damaged: it has a run and no config.yaml")
        with self.reported():
            write_atomically(self.path / "environment.json", json.dumps(environment, indent=2).encode() + b"\n")
            write_atomically(self._config, json.dumps(plain, indent=2).encode() + b"\n")

    def read(self) -> Run:
        """Return the run with the rounds that are complete.

        Raises:
            RunError: there is no run here, or its files are damaged.
        """
        if not self._config.exists():
            raise RunError(f"{self.path} is not a run folder: it has no config.yaml")
        config, checkpoint, rounds = self._read_config(), self.read_checkpoint(), self.read_rounds()
        if checkpoint is not None:
            self._check_count(len(rounds), checkpoint["state"]["n_rounds"])
            self._check_digest(self._lines(), checkpoint)
        state = checkpoint["state"].get("sampler_state", {}) if checkpoint else {}
        return Run(self.path, config, rounds, finished=bool(checkpoint and checkpoint["finished"]), sampler_state=state)

    def read_rounds(self) -> list[RoundResult]:
        """Return the rounds of all whole lines; a last line that was cut off does not count."""
        try:
            rounds = [RoundResult.from_json(json.loads(line)) for line in self._lines()]
            for number, result in enumerate(rounds, 1):
                _check_numbers(result, f"line {number}")
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RunError(f"{self._rounds} is damaged: {error}") from error
        return rounds

    def _lines(self) -> list[bytes]:
        """Return all whole lines of `rounds.jsonl`."""
        return self._rounds.read_bytes().split(b"\n")[:-1] if self._rounds.exists() else []

    def keep_rounds(self, checkpoint: Mapping[str, Any] | None) -> None:
        """Drop all lines of `rounds.jsonl` but those that a checkpoint counts.

        Raises:
            RunError: there are fewer, or others than were written.
        """
        n = checkpoint["state"]["n_rounds"] if checkpoint else 0
        if not self._rounds.exists() and n == 0:
            return
        lines = self._lines()
        self._check_count(len(lines), n)
        if checkpoint:
            self._check_digest(lines, checkpoint)
        self._digest = _digest(lines[:n])
        if len(lines) > n or self._rounds.stat().st_size != sum(len(line) + 1 for line in lines):
            with self.reported():
                write_atomically(self._rounds, b"".join(line + b"\n" for line in lines[:n]))

    def _check_count(self, n_lines: int, n_rounds: int) -> None:
        if n_lines < n_rounds:
            raise RunError(f"{self._rounds} is damaged: it has {n_lines} rounds, the checkpoint counts {n_rounds}")

    def _check_digest(self, lines: Sequence[bytes], checkpoint: Mapping[str, Any]) -> None:
        n = checkpoint["state"]["n_rounds"]
        if "digest" in checkpoint and _digest(lines[:n]).hexdigest() != checkpoint["digest"]:
            raise RunError(f"{self._rounds} is damaged: its first {n} lines are not those that the run wrote")

    def append(self, result: RoundResult) -> None:
        """Write one more round, and wait until it is on disk.

        Args:
            result: the round.
        """
        line = json.dumps(result.to_json(), allow_nan=False) + "\n"
        with self.reported(), self._rounds.open("a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._digest.update(line.encode())

    def write_checkpoint(self, state: Mapping[str, Any], *, finished: bool) -> None:
        """Replace the checkpoint as a whole.

        Args:
            state: tensors, numbers, text, lists and dicts.
            finished: whether the run came to its end.

        Raises:
            RunError: the state holds what cannot be read back without unpickling; the old checkpoint stays.
        """
        content = as_safe_bytes({"finished": finished, "state": state, "digest": self._digest.hexdigest()})
        with self.reported():
            write_atomically(self._checkpoint, content)

    def read_checkpoint(self) -> dict[str, Any] | None:
        """Return the checkpoint, None where there is none yet.

        Raises:
            RunError: the file is damaged, or there are rounds without one.
        """
        if not self._checkpoint.exists():
            # The first checkpoint comes before the first line, so lines without one are not a run that was cut off.
            n_rounds = self.count_rounds()
            if n_rounds:
                raise RunError(f"{self.path} is damaged: it has {n_rounds} rounds and no checkpoint.pt")
            return None
        try:
            checkpoint: dict[str, Any] = torch.load(self._checkpoint, weights_only=True)
        except Exception as error:
            raise RunError(f"{self._checkpoint} is damaged: {error}") from error
        state = checkpoint.get("state") if isinstance(checkpoint, dict) else None
        if not isinstance(state, dict) or "finished" not in checkpoint or "n_rounds" not in state:
            raise RunError(f"{self._checkpoint} is damaged: it is not a run's checkpoint")
        return checkpoint

    def _read_config(self) -> dict[str, Any]:
        try:
            config: dict[str, Any] = json.loads(self._config.read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{self._config} is damaged: {error}") from error
        if not isinstance(config, dict):
            raise RunError(f"{self._config} is damaged: it holds no settings")
        return config

    @contextmanager
    def reported(self) -> Iterator[None]:
        """Turn an error of the file system into one that says what is safe."""
        try:
            yield
        except OSError as error:
            raise RunError(
                f"cannot write to {self.path}: {error}. {self.count_rounds()} rounds are saved there and stay loadable"
            ) from error

    def count_rounds(self) -> int:
        """Return how many rounds are saved: the whole lines of `rounds.jsonl`."""
        return self._rounds.read_bytes().count(b"\n") if self._rounds.exists() else 0


def _check_numbers(result: RoundResult, where: str) -> None:
    """Require numbers where a record has them: a line that somebody edited, of a run without a digest, may have others.

    Raises:
        TypeError, ValueError: one is none, or a label is below 0.
    """
    parts = {part: getattr(result, part) for part in ("test", "validation", "pool", "seconds")}
    numbers = {f"{part}/{name}": value for part, found in parts.items() for name, value in found.items()}
    numbers |= {"round": result.round, "n_labeled": result.n_labeled, "cost": result.cost}
    for name, value in numbers.items():
        if not isinstance(value, int | float):
            raise TypeError(f"{where} has {value!r} as {name}")
    if len(result.labels) and int(result.labels.min()) < 0:
        raise ValueError(f"{where} has the label {int(result.labels.min())}")


def _digest(lines: Sequence[bytes]) -> hashlib._Hash:
    return hashlib.sha256(b"".join(line + b"\n" for line in lines))


def find_runs(root: str | os.PathLike[str]) -> list[Run]:
    """Return every run below a folder, in the order of their paths.

    Args:
        root: the folder.

    Raises:
        RunError: there is no such folder, or a run in it is damaged.
    """
    if not Path(root).is_dir():
        raise RunError(f"there is no folder {root}")
    return [RunFolder(path.parent).read() for path in sorted(Path(root).rglob("rounds.jsonl"))]


def environment(device: torch.device) -> dict[str, Any]:
    """Return what a run depends on besides its config: versions, device, git commit of torchal where it has one."""
    import platform
    import subprocess
    from importlib.metadata import PackageNotFoundError, version

    def version_or_none(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(Path(__file__).parent), *arguments],
                capture_output=True,
                text=True,
                check=False,
                timeout=10,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # Only a checkout that tracks this file is torchal's own: an installed copy may lie inside somebody's repository.
    tracked = git("ls-files", "--error-unmatch", Path(__file__).name) is not None
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version_or_none(name) for name in ("torchal", "torch", "numpy", "scikit-learn")},
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or None,
        "threads": torch.get_num_threads(),
        "commit": git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") if tracked else None,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
