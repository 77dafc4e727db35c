"""Embed one part of a data set by a network trained on another: `python -m experiments.embed --out a.npz data=mnist`.

The network is fitted on the training part, 2/3 of the rows unless `data.fractions` says otherwise. What it makes of all
other rows is written with their labels. `data=npz` reads that: a pool with features that none of its labels went into.
"""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException
from hydra.utils import instantiate
from numpy.typing import NDArray
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.folders import CONF, check_fetched, data_folder
from experiments.machine import pick_device
from experiments.names import config_folders, with_full_names
from experiments.run import explain
from torchal._records import write_atomically
from torchal.data import Splits
from torchal.errors import CapabilityError, ConfigError, TorchalError
from torchal.pool import interop
from torchal.protocols import HasEmbedding, provides


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, embed and write; a mistake of the caller ends in one line."""
    parser = argparse.ArgumentParser(prog="python -m experiments.embed", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where to write the .npz file")
    parser.add_argument("settings", nargs="*", help="as for experiments.run: data=, model=, seed= and their settings")
    options = parser.parse_args(arguments)
    try:
        splits, model = loaded(options.settings)
        interop.fit(model, splits.train.inputs, splits.train.targets)
        inputs, targets, rows = embedded(splits, model)
        file = io.BytesIO()
        np.savez(file, inputs=inputs, targets=targets, source_rows=rows)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(options.out, file.getvalue())
    except (TorchalError, HydraException, OmegaConfBaseException, OSError) as error:
        print(f"error: {explain(error)}", file=sys.stderr)
        return 2
    n_rows, n_columns = inputs.shape
    n_others = len(splits.train.targets)
    print(f"{options.out}: {n_rows} rows of {n_columns} features, by a network fitted on {n_others} others")
    return 0


def loaded(settings: Sequence[str]) -> tuple[Splits, Any]:
    """Return the data and the model that some settings of `experiments.run` describe.

    Raises:
        ConfigError: no row is left to be embedded.
        CapabilityError: the model has no embedding.
    """
    folders = config_folders(settings)
    words = [word for setting in settings for word in with_full_names(setting, folders)]
    with initialize_config_dir(str(CONF), version_base="1.3"):
        config = compose("config", words, return_hydra_config=True)
    missing = sorted(OmegaConf.missing_keys(config.data))
    if missing:
        raise ConfigError(f"give {' and '.join(f'{name}=' for name in missing)}")
    config.device = str(pick_device(config.device, job=0))
    data: Any = OmegaConf.to_container(config.data, resolve=True)
    about = data.pop("about", None)
    if about is not None and Path(data["path"]).is_relative_to(data_folder()):
        check_fetched(config.hydra.runtime.choices.data, about)
    model = instantiate(config.model, _convert_="object")
    if not provides(model, HasEmbedding):
        raise CapabilityError(f"{type(model).__name__} has no embedding; choose a network, as model=small_cnn")
    splits: Splits = instantiate(data)
    if not len(splits.validation.targets) + len(splits.test.targets):
        raise ConfigError("every row is in the training part; data.fractions=[0.2,0.8,0] leaves four fifths to embed")
    return splits, model


def embedded(splits: Splits, model: Any) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return embeddings (M, D) float32, labels (M,) and source rows (M,) of all rows outside the training part."""
    parts = [part for part in (splits.validation, splits.test) if len(part.targets)]
    inputs = np.concatenate([interop.embedding(model, part.inputs).float().cpu().numpy() for part in parts])
    targets = np.concatenate([part.targets.cpu().numpy() for part in parts])
    names = np.asarray(splits.class_names)
    rows = np.concatenate([splits.validation_rows.cpu().numpy(), splits.test_rows.cpu().numpy()])
    return inputs, names[targets], rows


if __name__ == "__main__":
    sys.exit(main())
