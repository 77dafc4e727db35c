"""Run one experiment, or a sweep of them: `python -m experiments.run sampler=margin,uniform seed=0,1,2 -m`."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import hydra
import torch
from filelock import FileLock
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments.report import SWEEP_RUNS, ReportCallback
from torchal import samplers
from torchal._checks import check_flag, check_fraction, check_whole, rows_in
from torchal._records import write_atomically
from torchal.data import Splits, start_rows
from torchal.errors import ConfigError, TorchalError
from torchal.pool import interop
from torchal.runs.metrics import BY_NAME, evaluate
from torchal.runs.results import Run
from torchal.runs.schedule import Schedule
from torchal.runs.trainer import Trainer

_EXPECTED = (HydraException, OmegaConfBaseException, TorchalError, OSError)
_CONF = Path(__file__).parent / "conf"
_LONGEST_NAME = 120  # bytes of a folder's name; file systems allow 255


def source_name(choice: str, path: str | None) -> str:
    """Return what a data set is called: a file by its name, anything else by its choice."""
    return choice if path is None else Path(Path(path).name.removesuffix(".gz")).stem


def strategy_name(choice: str, spec: str | None) -> str:
    """Return what a sampler is called: a mixture by its members and weights, anything else by its choice."""
    if choice != "mixture" or spec is None:
        return choice
    return f"{choice}-{samplers.normal_spec(spec)}"


def override_suffix(text: str) -> str:
    """Return the settings of a command as the end of a folder's name: no slash, and a digest for what is too long."""
    suffix = f",{text}".replace("/", "_") if text else ""
    if len(suffix.encode()) <= _LONGEST_NAME:
        return suffix
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    return suffix.encode()[: _LONGEST_NAME - 9].decode(errors="ignore") + "~" + digest


OmegaConf.register_new_resolver("source", source_name, replace=True)
OmegaConf.register_new_resolver("strategy", strategy_name, replace=True)
OmegaConf.register_new_resolver("overrides", override_suffix, replace=True)


def run(config: DictConfig) -> Run:
    """Run what a config describes into its folder, and return the run."""
    hydra_config = HydraConfig.get()
    choices: Any = hydra_config.runtime.choices
    for setting in ("data", "model", "sampler", "schedule", "start", "runs", "name", "run_dir"):
        if config[setting] is None:
            raise ConfigError(f"{setting} must not be null")
    if not OmegaConf.is_list(config.metrics):
        raise ConfigError(f"metrics must be a list of {', '.join(BY_NAME)}; got {config.metrics!r}")
    check_flag("progress", config.progress)
    check_flag("log_fits", config.log_fits)
    device = pick_device(config.device)
    schedule = Schedule(**OmegaConf.to_object(config.schedule))  # type: ignore[arg-type]
    splits: Splits = instantiate(config.data, _convert_="object").to(device)
    if not len(splits.test.targets):
        raise ConfigError(f"an experiment needs a test part, data.fractions are {config.data.fractions}")
    model = instantiate(config.model, _convert_="object")
    in_rounds = with_logged_fits(model, Path(config.run_dir) / "tb" / "fits") if config.log_fits else model
    sampler = instantiate(config.sampler, _convert_="object")
    unknown = [name for name in config.metrics if name not in BY_NAME]
    if unknown:
        raise ConfigError(f"no metric is named {', '.join(map(repr, unknown))}; there are {', '.join(BY_NAME)}")
    start = draw_start(splits, config.start, seed=config.seed)

    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    for setting in ("progress", "log_fits", "runs", "name", "run_dir", "device"):  # where and how, not what
        del plain[setting]
    plain["model"].pop("device", None)
    data = source_name(choices.data, OmegaConf.select(config, "data.path"))
    strategy = strategy_name(choices.sampler, OmegaConf.select(config, "sampler.spec"))
    if choices.sampler == "mixture" and "spec" in plain["sampler"]:
        plain["sampler"]["spec"] = samplers.normal_spec(plain["sampler"]["spec"])
    plain["names"] = {"data": data, "model": choices.model, "sampler": strategy}
    which = f"{hydra_config.job.num + 1}/{os.environ[SWEEP_RUNS]} " if SWEEP_RUNS in os.environ else ""
    trainer = Trainer(
        in_rounds,
        sampler,
        schedule=schedule,
        run_dir=config.run_dir,
        seed=config.seed,
        metrics={name: BY_NAME[name] for name in config.metrics},
        config=plain,
        progress=config.progress,
        description=f"{which}{strategy} seed={config.seed} {device.type}",
    )
    validation = splits.validation if len(splits.validation.targets) else None
    done = trainer.fit(splits.pool(), splits.oracle(), validation=validation, test=splits.test, start=start)
    full_data_accuracy(plain, model, splits, Path(config.runs) / config.name / "full_data")
    return done


def with_logged_fits(model: Any, folder: Path) -> Any:
    """Return a network that writes the epochs of its fits to a folder.

    Raises:
        ConfigError: the model is no network.
    """
    from torchal.models import TensorBoardLog, TorchClassifier

    if not isinstance(model, TorchClassifier):
        raise ConfigError(f"log_fits=true is for networks, whose fits have epochs; {type(model).__name__} is none")
    logged: Any = interop.unfitted(model)
    return logged.set_params(callbacks=[*model.callbacks, TensorBoardLog(folder)])


def pick_device(name: str) -> torch.device:
    """Return the device of this name; "auto" is CUDA where there is one, else the CPU.

    Raises:
        ConfigError: the device is not there.
    """
    if not isinstance(name, str):
        raise ConfigError(f"device must be auto, cpu, cuda, cuda:1, ...; got {name!r}")
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        probe = torch.zeros(1, device=name)
        probe.item()  # some devices hold no values
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"device {name!r} cannot be used: {str(error).splitlines()[0]}") from error
    return probe.device


def draw_start(splits: Splits, start: DictConfig, *, seed: int) -> int | torch.Tensor:
    """Return the start set that the config asks for: rows, or how many to draw at random.

    Raises:
        ConfigError: not exactly one of n and fraction, or an unknown way to draw.
    """
    ways = ("stratified", "playground", "random")
    if start.how not in ways:
        raise ConfigError(f"start.how must be one of {', '.join(ways)}; got {start.how!r}")
    if (start.n is None) == (start.fraction is None):
        raise ConfigError(f"give one of start.n and start.fraction, got {start.n} and {start.fraction}")
    if start.fraction is None:
        check_whole("start.n", start.n, least=1)
        n = int(start.n)
    else:
        check_fraction("start.fraction", start.fraction)
        n = max(1, rows_in(start.fraction, len(splits.train.targets)))
    if start.how == "random":
        return n
    settings = {} if start.min_per_class is None else {"min_per_class": start.min_per_class}
    return start_rows(splits.train.targets, n, generator=torch.Generator().manual_seed(seed), how=start.how, **settings)


def full_data_accuracy(plain: dict[str, Any], model: Any, splits: Splits, folder: Path) -> float:
    """Return the test accuracy of the model fitted on all training rows; fitted once, and kept in a file.

    The samplers of a sweep share it: it depends on data, split, model and seed only.
    """
    key = {name: plain[name] for name in ("data", "model", "seed")}
    path = folder / f"seed={plain['seed']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):  # two runs of a parallel sweep must not both fit it
        if path.exists():
            saved = json.loads(path.read_text(encoding="utf-8"))
            if saved["config"] == key:
                return float(saved["accuracy"])
        if interop.is_clonable(model):
            model = interop.unfitted(model)
        interop.fit(model, splits.train.inputs, splits.train.targets)
        seen = interop.seen_classes(model, splits.train.targets)
        accuracy = evaluate(model, splits.test, n_classes=splits.n_classes, seen=seen, metrics={})["accuracy"]
        write_atomically(path, json.dumps({"config": key, "accuracy": accuracy}).encode())
    return accuracy


def with_full_names(argument: str, folders: Sequence[Path] = ()) -> list[str]:
    """Return `sampler=...` with the listed names in the place of aliases, and any other argument as it is.

    A mixture by the Playground's pattern becomes `sampler=mixture sampler.spec=...`. A name that has a yaml file in one
    of the folders is nothing but that.

    Raises:
        ConfigError: a list with such patterns and other names: they are settings of one choice.
    """
    group, equals, choices = argument.partition("=")
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
    return [*map(Path, (*after, *joined)), _CONF]


@hydra.main(version_base="1.3", config_path=str(_CONF), config_name="config")
def hydra_main(config: DictConfig) -> float:
    """Return the final test accuracy, for sweepers that optimise."""
    done = run(config)
    if SWEEP_RUNS not in os.environ:
        print(f"run: {done.folder} on {pick_device(config.device)}")
    return done.rounds[-1].test["accuracy"]


def main() -> int:
    """Run the command line, and report on what it ran; a mistake of the caller ends in one line, not in a traceback."""
    debug = bool(os.environ.get("HYDRA_FULL_ERROR"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra hands errors on instead of printing them
    ReportCallback.command = None
    problem, code = "", 0
    try:
        folders = config_folders(sys.argv[1:])
        sys.argv[1:] = [word for argument in sys.argv[1:] for word in with_full_names(argument, folders)]
        hydra_main()
    except KeyboardInterrupt:
        problem, code = "\nstopped; the same command goes on from here", 130
    except Exception as error:
        if debug:
            raise
        # What a model or a library refuses (scikit-learn's own errors, say) is a mistake in a setting like any other.
        more = "" if isinstance(error, _EXPECTED) else f" ({type(error).__name__}; HYDRA_FULL_ERROR=1 shows where)"
        problem, code = f"error: {explain(error)}{more}", 2
    finally:
        if not debug:
            del os.environ["HYDRA_FULL_ERROR"]
    # Here and not in a callback: a run that failed must not lose the table of the others.
    if ReportCallback.command is not None and not ReportCallback.command.report():
        code = code or 2
    if problem:
        print(problem, file=sys.stderr)
    return code


def explain(error: BaseException) -> str:
    """Return what went wrong in one line, with the valid names where a name was unknown."""
    chain: list[BaseException] = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__  # type: ignore[assignment]
    own = next((link for link in chain if isinstance(link, TorchalError)), None)
    if own is not None:
        return str(own)
    for link in chain:
        node = getattr(link, "parent_node", None)
        if "not in struct" in str(link) and isinstance(node, DictConfig):
            valid = ", ".join(str(key) for key in node)
            return f"there is no setting {link.full_key}; there are {valid}"  # type: ignore[attr-defined]
    cause = chain[1] if len(chain) > 1 and not isinstance(chain[1], OmegaConfBaseException | HydraException) else None
    lines = [line.strip() for line in str(chain[0] if cause is None else f"{chain[0]}: {cause}").splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(("full_key:", "object_type=")))


if __name__ == "__main__":
    sys.exit(main())
