"""What runs, their folders and their choices are called; and the words of a command line that stand for others."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from experiments.folders import CONF
from torchal import samplers
from torchal.errors import ConfigError

_ALIASES = {"noise": "noise.share", "repeat": "repeat.times", "select_model": "model@select_model"}
_LONGEST_NAME = 120  # bytes of a folder's name; file systems allow 255


def source_name(choice: str, path: str | None, published: str | None = None) -> str:
    """Return what a data set is called: a file of one's own by its name, anything else by its choice.

    A file that is called as a choice has its kind in its name, so that `digits/` and `data=digits` share no folder.
    """
    if path is None or published is not None:
        return choice
    name = Path(Path(path).name.removesuffix(".gz")).stem
    return f"{name}-{choice}" if (CONF / "data" / f"{name}.yaml").is_file() else name


def strategy_name(choice: str, spec: str | None, active_fraction: Any = 1.0) -> str:
    """Return what a sampler is called: a mixture by its members and weights, anything else by its choice.

    One that picks a part of each batch only has its share, and that of uniform sampling, in its name.
    """
    name = choice if choice != "mixture" or spec is None else f"{choice}-{samplers.normal_spec(spec)}"
    if active_fraction == 1 or not isinstance(active_fraction, int | float):
        return name
    return f"{name}-{active_fraction:g}-uniform-{1 - active_fraction:g}"


def model_name(choices: Mapping[str, str | None]) -> str:
    """Return what the models are called: the one that is scored, and the one that selects where it is another."""
    selecting = choices.get("model@select_model")
    return str(choices["model"]) if selecting is None else f"{choices['model']}-selected-by-{selecting}"


def override_suffix(text: str) -> str:
    """Return the settings of a command as the end of a folder's name: no slash, and a digest for what is too long."""
    suffix = f",{text}".replace("/", "_") if text else ""
    if len(suffix.encode()) <= _LONGEST_NAME:
        return suffix
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return suffix.encode()[: _LONGEST_NAME - 9].decode(errors="ignore") + "~" + digest


OmegaConf.register_new_resolver("source", source_name, replace=True)
OmegaConf.register_new_resolver("strategy", strategy_name, replace=True)
OmegaConf.register_new_resolver("models", model_name, replace=True)
OmegaConf.register_new_resolver("overrides", override_suffix, replace=True)


def with_full_names(argument: str, folders: Sequence[Path] = ()) -> list[str]:
    """Return `sampler=...` with the listed names in the place of aliases, and any other argument as it is.

    A mixture by the Playground's pattern becomes `sampler=mixture sampler.spec=...`. A name that has a yaml file in one
    of the folders is nothing but that.

    Raises:
        ConfigError: a list with such patterns and other names: they are settings of one choice.
    """
    group, equals, choices = argument.partition("=")
    if group in _ALIASES:
        return [f"{_ALIASES[group]}{equals}{choices}"]
    if group != "sampler" or not equals:
        return [argument]
    names = choices.split(",")
    own = {name for name in names if any((folder / "sampler" / f"{name}.yaml").exists() for folder in folders)}
    specs = [name for name in names if samplers.is_mixture(name) and name not in own]
    if specs and len(specs) < len(names):
        raise ConfigError(
            f"{specs[0]} cannot stand in a list with other samplers; sweep over it by a command of its own: "
            "both join the same table"
        )
    if specs:
        return ["sampler=mixture", f"sampler.spec={','.join(specs)}"]
    return [f"sampler={','.join(name if name in own else samplers.full_name(name) for name in names)}"]


def config_folders(arguments: Sequence[str]) -> list[Path]:
    """Return the folders of configs that a command line names, and our own."""
    after = [value for option, value in pairwise(arguments) if option in ("--config-dir", "-cd")]
    joined = [argument.partition("=")[2] for argument in arguments if argument.startswith("--config-dir=")]
    return [*map(Path, (*after, *joined)), CONF]
