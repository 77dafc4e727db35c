"""Run one experiment, or a sweep of them: `python -m experiments.run sampler=margin,uniform seed=0,1,2 -m`."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import hydra
import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from tqdm import tqdm

from experiments.folders import CONF, check_fetched, data_folder
from experiments.full_data import Experiment, full_data_accuracies
from experiments.machine import (
    SWEEP_RUNS,
    is_beside_others,
    let_first_report,
    n_ranks,
    pick_device,
    rank,
    set_threads,
    turn_on,
)
from experiments.names import config_folders, model_name, source_name, strategy_name, with_full_names
from experiments.sweep import ReportCallback
from torchal import samplers
from torchal._checks import check_flag, check_fraction, check_whole, rows_in
from torchal._records import without
from torchal.data import Splits, start_rows, with_label_noise, with_repeats
from torchal.data.noise import check_noise
from torchal.distributed import Shards, join
from torchal.errors import ConfigError, FitError, TorchalError
from torchal.pool import FileInputs, interop
from torchal.protocols import UNLABELED
from torchal.runs.metrics import BY_NAME
from torchal.runs.results import Run
from torchal.runs.schedule import Schedule
from torchal.runs.tensorboard import TensorBoard
from torchal.runs.trainer import Trainer, fit_trials
from torchal.runs.watching import WATCHED

_TOLD: set[str] = set()  # of which data sets
_EXPECTED = (HydraException, OmegaConfBaseException, TorchalError, OSError)


def run(config: DictConfig) -> list[Run]:
    """Run what a config describes into its folders, one for each trial, and return the runs."""
    hydra_config = HydraConfig.get()
    check_settings(config)
    group = Shards(join() if n_ranks() > 1 else None)
    device = pick_device(config.device, job=hydra_config.job.num if SWEEP_RUNS in os.environ else 0)
    set_threads(config.threads, hydra_config.launcher)
    seeds = range(int(config.seed), int(config.seed) + config.trials)
    configs = [with_seed(config, seed, device) for seed in seeds]
    with turn_on(device):
        loaded: dict[str, Splits] = {}  # by what they are: with a seed of its own, data are the same for all trials
        with shared_bar(config) as bar:
            with group.meeting() as meeting:  # what a rank cannot read, or was told otherwise, all of them hear of
                meeting.rows(1, 1)
                meeting.same(command=list(hydra_config.overrides.task), config=_digest(config))
                experiments = [prepare(one, device, loaded, progress=bar, group=group) for one in configs]
                trials = [one.steps() for one in experiments]  # all are checked before the first is written
            tell_of_unlabeled(loaded.values())
            runs = fit_trials(trials)
        if config.full_data and not any(isinstance(data.train.inputs, FileInputs) for data in loaded.values()):
            full_data_accuracies(experiments)
    return runs


def _digest(config: DictConfig) -> str:
    """Return what tells configs apart: files of them may differ too."""
    plain = OmegaConf.to_container(config, resolve=True)
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:8]


def check_settings(config: DictConfig) -> None:
    """Require settings that Hydra lets be anything."""
    if n_ranks() > 1 and is_beside_others():
        raise ConfigError(
            f"torchrun started {n_ranks()} ranks, and a launcher would start jobs beside each of them: sweep with -m "
            "alone, which runs one job after another on all ranks"
        )
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        raise ConfigError(f"give {' and '.join(f'{name}=' for name in missing)}")
    for setting in ("data", "model", "sampler", "schedule", "start", "runs", "name", "run_dir", "noise", "repeat"):
        if config[setting] is None:
            raise ConfigError(f"{setting} must not be null")
    if not OmegaConf.is_list(config.metrics):
        raise ConfigError(f"metrics must be a list of {', '.join(BY_NAME)}; got {config.metrics!r}")
    unknown = [name for name in config.metrics if name not in BY_NAME]
    if unknown:
        raise ConfigError(f"no metric is named {', '.join(map(repr, unknown))}; there are {', '.join(BY_NAME)}")
    if not OmegaConf.is_list(config.watch):
        raise ConfigError(f"watch must be a list of {', '.join(WATCHED)}; got {config.watch!r}")
    unknown = [name for name in config.watch if name not in WATCHED]
    if unknown:
        raise ConfigError(f"nothing to watch is named {', '.join(map(repr, unknown))}; there are {', '.join(WATCHED)}")
    check_flag("progress", config.progress)
    check_flag("log_fits", config.log_fits)
    check_flag("full_data", config.full_data)
    check_flag("report", config.report)
    check_whole("seed", config.seed, least=0)
    check_whole("trials", config.trials, least=1)
    check_fraction("active_fraction", config.active_fraction)


def with_seed(config: DictConfig, seed: int, device: torch.device) -> DictConfig:
    """Return the config of one trial."""
    one = copy.deepcopy(config)
    one.seed = seed
    if config.device == "auto" and is_beside_others():
        one.device = str(device)
    return one


def prepare(
    config: DictConfig,
    device: torch.device,
    loaded: dict[str, Splits],
    *,
    progress: bool | tqdm[Any],
    group: Shards | None = None,
) -> Experiment:
    """Make a run from its config."""
    hydra_config = HydraConfig.get()
    choices: Any = hydra_config.runtime.choices
    plain: dict[str, Any] = OmegaConf.to_container(config, resolve=True)  # type: ignore[assignment]
    # where and how, not what
    where_and_how = (
        "progress",
        "log_fits",
        "full_data",
        "report",
        "runs",
        "name",
        "run_dir",
        "device",
        "trials",
        "threads",
    )
    for setting in where_and_how:
        del plain[setting]
    for model in {"model", "select_model"} & plain.keys():
        plain[model] = without(plain[model], {"device"})  # its own, and those of the models inside it
    if not plain["watch"]:
        del plain["watch"]  # so that a run that began before there was such a setting goes on
    about = plain["data"].pop("about", None)
    schedule = Schedule(**plain["schedule"])
    key = json.dumps(plain["data"], sort_keys=True, default=str)
    if key not in loaded:
        settings: Any = OmegaConf.to_container(config.data, resolve=True)
        settings.pop("about", None)
        if about is not None and Path(settings["path"]).is_relative_to(data_folder()):
            check_fetched(choices.data, about)
        loaded[key] = instantiate(settings, _convert_="object").to(device)
    splits = loaded[key]
    if not len(splits.test.targets):
        raise ConfigError(f"an experiment needs a test part, data.fractions are {config.data.fractions}")
    splits = with_noise(splits, plain["noise"], seed=config.seed)
    if plain["repeat"]["times"] != 1:
        splits = with_repeats(splits, **plain["repeat"], seed=config.seed)
    model = instantiate(config.model, _convert_="object")
    logged = with_logged_fits(model, Path(config.run_dir) / "tb" / "fits") if config.log_fits else model
    selecting = OmegaConf.select(config, "select_model")
    sampler = instantiate(config.sampler, _convert_="object")
    if config.active_fraction < 1:
        shares = (float(config.active_fraction), 1 - float(config.active_fraction))
        sampler = samplers.Mixture((sampler, samplers.Uniform()), weights=shares)
    if splits.columns is not None:
        plain["columns"] = splits.columns
    data = source_name(choices.data, OmegaConf.select(config, "data.path"), about and "")
    strategy = strategy_name(choices.sampler, OmegaConf.select(config, "sampler.spec"), config.active_fraction)
    if choices.sampler == "mixture" and "spec" in plain["sampler"]:
        plain["sampler"]["spec"] = samplers.normal_spec(plain["sampler"]["spec"])
    plain["names"] = {"data": data, "model": model_name(choices), "sampler": strategy}
    which = f"{hydra_config.job.num + 1}/{os.environ[SWEEP_RUNS]} " if SWEEP_RUNS in os.environ else ""
    trainer = Trainer(
        logged if rank() == 0 else model,  # of several ranks, the first writes
        sampler,
        schedule=schedule,
        run_dir=config.run_dir,
        seed=config.seed,
        metrics={name: BY_NAME[name] for name in config.metrics},
        config=plain,
        about={"data": class_counts(splits)},
        progress=progress,
        description=f"{which}{strategy} seed={config.seed} {device.type}",
        select_model=None if selecting is None else instantiate(selecting, _convert_="object"),
        costs=label_costs(config.cost, splits),
        watch=list(config.watch),
        # of one run; of a sweep they would be as many copies of the pool
        loggers=[run_log(config, splits)],
        group=group,
    )
    start = draw_start(splits, config.start, seed=config.seed)
    return Experiment(plain, trainer, model, splits, start, Path(config.runs) / config.name / "full_data")


def run_log(config: DictConfig, splits: Splits) -> TensorBoard:
    """Return what a run writes to TensorBoard; the pool for the projector, where it is not one of several runs."""
    alone = SWEEP_RUNS not in os.environ and config.trials == 1
    return TensorBoard(projector_rows=5000 if alone else 0, image_shape=splits.image_shape)


def class_counts(splits: Splits) -> dict[str, Any]:
    """Return what the classes are called, and how many rows of the pool the oracle says to be of each."""
    targets = splits.train.targets
    counts = targets[targets != UNLABELED].bincount(minlength=splits.n_classes)
    return {"class_names": list(splits.class_names), "class_counts": counts.tolist()}


def with_noise(splits: Splits, noise: Mapping[str, Any], *, seed: int) -> Splits:
    """Return splits with the wrong labels that the config asks for; by its default they are as they were."""
    share, matrix = noise["share"], noise["matrix"]
    check_noise(share)
    if not share and matrix is None:
        return splits
    return with_label_noise(splits, share or None, kind=noise["kind"], matrix=matrix, seed=seed)


def tell_of_unlabeled(data: Iterable[Splits]) -> None:
    """Say, once a command, that a file has rows without a label, and how to ask about them."""
    for splits in data:
        others = splits.unlabeled_rows
        if others is not None and splits.name not in _TOLD:
            _TOLD.add(splits.name)
            n_known = sum(len(part.targets) for part in (splits.train, splits.validation, splits.test))
            print(
                f"{splits.name}: {len(others)} rows have no label; {n_known} rows with one are in this simulation. "
                "To ask a person about the others: ActiveLearner(model, sampler, splits.query_pool())",
                file=sys.stderr,
            )


def label_costs(cost: Any, splits: Splits) -> float | torch.Tensor:
    """Return what a label costs: a number, or one for each training row from a .npy file with one for each source row.

    Raises:
        ConfigError: it is neither a number nor such a file.
    """
    if not isinstance(cost, str):
        if isinstance(cost, bool) or not isinstance(cost, int | float):
            raise ConfigError(f"cost must be a number or a .npy file with one for each row, got {cost!r}")
        return cost
    try:
        costs = np.load(cost, allow_pickle=False, mmap_mode="r")
    except (OSError, ValueError, EOFError) as error:
        raise ConfigError(f"cost must be a number or a .npy file with one for each row: {cost}: {error}") from error
    rows = splits.train_rows.cpu().numpy()
    if costs.ndim != 1 or costs.dtype.kind not in "iuf" or len(costs) <= rows.max():
        raise ConfigError(
            f"{cost} must have one number for each row of the source, at least {rows.max() + 1}, "
            f"got {costs.dtype} {costs.shape}"
        )
    return torch.from_numpy(np.array(costs[rows], dtype=np.float64))


class SweepBar:
    """The progress bar of a command that makes several runs in its own process."""

    shared: ClassVar[tqdm[Any] | None] = None

    @classmethod
    def close(cls) -> None:
        """End it."""
        if cls.shared is not None:
            cls.shared.close()
        cls.shared = None


@contextmanager
def shared_bar(config: DictConfig) -> Iterator[bool | tqdm[Any]]:
    """Return a bar for all runs of this command; for a single run, whether it shows one of its own."""
    n_jobs = int(os.environ.get(SWEEP_RUNS, "1"))
    if n_jobs * config.trials == 1:
        yield bool(config.progress)
        return
    hidden = not config.progress or is_beside_others() or rank() > 0
    if SweepBar.shared is None or hidden:
        bar = tqdm(
            total=n_jobs * config.trials,
            disable=hidden,
            unit="run",
            delay=1e-3,  # nothing is shown where the settings are refused
            bar_format="{percentage:3.0f}%|{bar}| {n:.1f}/{total} runs [{elapsed}<{remaining}{postfix}]",
        )
        SweepBar.shared = None if hidden else bar
    else:
        bar = SweepBar.shared
    try:
        yield bar
    finally:
        if hidden:
            bar.close()


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
        check_whole("start.n", start.n, least=0)
        n = int(start.n)
        if not n:
            return 0  # the sampler picks the first batch too
    else:
        check_fraction("start.fraction", start.fraction)
        n = max(1, rows_in(start.fraction, len(splits.train.targets)))
    targets = splits.train.targets
    known = (targets != UNLABELED).nonzero().squeeze(1)
    if start.how == "random":
        return n
    settings = {} if start.min_per_class is None else {"min_per_class": start.min_per_class}
    rows = start_rows(targets[known], n, generator=torch.Generator().manual_seed(seed), how=start.how, **settings)
    return known[rows]


@hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
def hydra_main(config: DictConfig) -> float:
    """Return the final test accuracy, for sweepers that optimise."""
    runs = run(config)
    if SWEEP_RUNS not in os.environ and rank() == 0:
        for done in runs:
            print(f"run: {done.folder} on {pick_device(config.device)}")
    elif is_beside_others():
        for done in runs:
            print(f"run: {done.folder}: {done.seconds:.1f} s on {torch.get_num_threads()} threads", flush=True)
    return float(np.mean([done.rounds[-1].test["accuracy"] for done in runs]))


def main() -> int:
    """Run the command line, and report on what it ran; a mistake of the caller ends in one line, not in a traceback."""
    debug = bool(os.environ.get("HYDRA_FULL_ERROR"))
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra hands errors on instead of printing them
    ReportCallback.command = None
    _TOLD.clear()
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
        ours = isinstance(error, _EXPECTED) and not isinstance(error, FitError)  # which is a library's
        more = "" if ours else f" ({type(error).__name__}; HYDRA_FULL_ERROR=1 shows where)"
        problem, code = f"error: {explain(error)}{more}", 2
    finally:
        SweepBar.close()
        if not debug:
            del os.environ["HYDRA_FULL_ERROR"]
    # Here and not in a callback: a run that failed must not lose the table of the others.
    if ReportCallback.command is not None and rank() == 0 and not ReportCallback.command.report():
        code = code or 2
    if problem:
        if n_ranks() > 1:
            problem = f"rank {rank()}: {problem.lstrip()}"
        print(f"{problem}\n", end="", file=sys.stderr)  # in one write, for others write too
    let_first_report(failed=bool(code))
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
    # by its name, under which the workers of a parallel sweep import it too
    from experiments.run import main as _main

    sys.exit(_main())
