"""Programs in processes of their own that begin at once: forked from one that has imported what takes long.

That spares each the seconds in which torch and Lightning are imported. What is tested of the import itself, or of how
the interpreter ends, is started with ``subprocess``.
"""

import atexit
import importlib
import json
import multiprocessing
import os
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from multiprocessing.context import ForkContext, ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

PRELOADED = ["impasto.learning.training", "impasto.learning.command", "impasto.painting.video", "tests.processes"]


def server() -> ForkServerContext:
    """What starts processes with all of it imported; there is one for each process that runs tests."""
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(PRELOADED)
    return server


def start(
    *words: str,
    cwd: Path | None = None,
    out: Path | None = None,
    errors: Path | None = None,
    by: ForkContext | ForkServerContext | None = None,
) -> BaseProcess:
    """Start what ``python WORDS`` is; ``out`` and ``errors`` are where its streams go."""
    files = {1: out, 2: errors}
    folder, threads = cwd or Path.cwd(), torch.get_num_threads()
    process = (by or server()).Process(target=_become, args=(words, folder, files, dict(os.environ), threads))
    process.start()
    return process


def run(
    *words: str, cwd: Path | None = None, by: ForkContext | ForkServerContext | None = None
) -> "subprocess.CompletedProcess[str]":
    """Return what ``python WORDS`` printed and its exit status."""
    folder = Path(tempfile.mkdtemp())  # not a TemporaryDirectory: a forked process would remove it at its end
    out, errors = folder / "out", folder / "errors"
    process = start(*words, cwd=cwd, out=out, errors=errors, by=by)
    try:
        process.join()
        assert process.exitcode is not None
        return subprocess.CompletedProcess(words, process.exitcode, out.read_text(), errors.read_text())
    finally:
        process.kill()
        shutil.rmtree(folder)


def serve() -> None:
    """For each line [FOLDER, *WORDS] that is read, print [STATUS, OUT, ERRORS] of what ``python WORDS`` does there.

    For what ``server`` cannot start, such as programs in another namespace.
    """
    for name in PRELOADED:
        importlib.import_module(name)
    for line in sys.stdin:
        folder, *words = json.loads(line)
        done = run(*words, cwd=Path(folder), by=multiprocessing.get_context("fork"))
        print(json.dumps([done.returncode, done.stdout, done.stderr]), flush=True)  # noqa: T201 - it is the answer


def _become(
    words: tuple[str, ...],
    folder: Path,
    files: Mapping[int, Path | None],
    environment: Mapping[str, str],
    threads: int,
) -> None:
    """Do in this process what an interpreter does that is started with these words."""
    os.chdir(folder)
    os.environ.clear()  # that of the test which was the first to start a process
    os.environ.update(environment)
    for stream, path in files.items():
        if path is not None:
            file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            os.dup2(file, stream)
            os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    multiprocessing.set_start_method("fork", force=True)  # of loader workers, as in a program that was not served
    torch.set_num_threads(threads)
    try:
        _execute(*words)
    finally:
        atexit._run_exitfuncs()  # which multiprocessing leaves out


def _execute(word: str, *more: str) -> None:
    if word == "-c":
        sys.argv, sys.path = ["-c", *more[1:]], ["", *sys.path]
        exec(compile(more[0], "<string>", "exec"), {"__name__": "__main__"})
    elif word == "-m":
        sys.argv, sys.path = list(more), ["", *sys.path]
        runpy.run_module(more[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv, sys.path = [word, *more], [str(Path(word).parent), *sys.path]
        runpy.run_path(word, run_name="__main__")
