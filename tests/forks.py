"""Functions in processes of their own, forked from one that has imported everything: a fresh one spends seconds on it.

A child has its own folder, descriptors, settings and exit code, as a program has. What happens while Python starts and
imports is not in it: each kind of killed run is also tried once as a program.
"""

import multiprocessing
import os
import traceback
from importlib.util import find_spec

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["pytest", "tests.killed_run", "torch.utils.tensorboard", *(["experiments.run"] if find_spec("hydra") else [])]
)


def start(function, *arguments):
    """Start a function of a module, in a group of processes of its own."""
    process = _FORKS.Process(target=_in_a_group, args=(function, arguments))
    process.start()
    return process


def _in_a_group(function, arguments):
    os.setsid()
    function(*arguments)


def exit_code(function, *arguments, seconds=60):
    """Return how a function ends, within this time; minus the signal where one killed it."""
    process = start(function, *arguments)
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"{function.__name__} did not end in {seconds} s")
    return process.exitcode


def answer(function, *arguments):
    """Return what a function returns; an error of it fails the test, with its traceback."""
    receiver, sender = _FORKS.Pipe(duplex=False)
    process = start(_send, sender, function, arguments)
    sender.close()
    try:
        value, error = receiver.recv()
    finally:
        process.join()
    assert not error, error
    return value


def _send(sender, function, arguments):
    try:
        sender.send((function(*arguments), ""))
    except BaseException:
        sender.send((None, traceback.format_exc()))
