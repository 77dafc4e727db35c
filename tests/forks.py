"""Functions in processes of their own, forked from one that has imported everything: a fresh one spends seconds on it.

A child has its own folder, arguments, descriptors and exit code, as a program has. What a program does while Python
and its imports start is not in it: each kind of killed run is also tried once in a fresh process.
"""

import multiprocessing
import os
from importlib.util import find_spec

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    ["pytest", "tests.killed_run", "torch.utils.tensorboard", *(["experiments.run"] if find_spec("hydra") else [])]
)


def start(function, *arguments):
    """Start a function of a module, in a group of processes of its own."""
    process = _FORKS.Process(target=_call, args=(function, arguments))
    process.start()
    return process


def _call(function, arguments):
    os.setsid()
    function(*arguments)


def exit_code(function, *arguments, seconds=60):
    """Return the exit code of a function that ends in this time; minus the signal where one killed it."""
    process = start(function, *arguments)
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise TimeoutError(f"{function.__name__} did not end in {seconds} s")
    return process.exitcode


def answer(function, *arguments):
    """Return what a function of a module returns."""
    receiver, sender = _FORKS.Pipe(duplex=False)
    process = start(_send, sender, function, arguments)
    sender.close()
    try:
        return receiver.recv()
    finally:
        process.join()


def _send(sender, function, arguments):
    sender.send(function(*arguments))
