"""A process that has imported what others wrote already and forks for each command of the tests.

Importing torch, its exporters and scipy takes ten seconds, and the tests call hundreds of
commands. What a command is given and what it leaves are those of a process of its own: arguments,
folder, environment, output, exit status. Secateur itself is imported anew in each.
``command_cases.cold`` runs the installed script instead.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

PRELOADED = (
    "torch.export._trace", "torch.onnx._internal.exporter._core",
    "onnxscript.function_libs.torch_lib.ops", "pydantic", "rich.progress", "rich.table",
    "safetensors.torch", "scipy.optimize", "scipy.sparse.csgraph", "sklearn.datasets", "typer",
    "yaml",
)  # fmt: skip


class Warm:
    """Runs commands, one at a time."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def run(
        self, folder: Path, words: Sequence[str], environment: Mapping[str, str], timeout: float
    ) -> subprocess.CompletedProcess[str]:
        """``secateur WORDS`` in a folder, as ``subprocess.run`` would."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with tempfile.TemporaryDirectory() as place:
            out, err = Path(place) / "out", Path(place) / "err"
            request = [str(folder), list(words), dict(environment), str(out), str(err), timeout]
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            status = json.loads(self._process.stdout.readline())
            texts = [path.read_text(encoding="utf-8") for path in (out, err)]
        if status is None:
            raise subprocess.TimeoutExpired(["secateur", *words], timeout, *texts)
        return subprocess.CompletedProcess(["secateur", *words], status, *texts)

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(timeout=30)


def _serve() -> None:
    """Answer each line of stdin with the exit status of a command, None where it took too long."""
    for name in PRELOADED:
        with contextlib.suppress(ImportError):  # the command that needs it will say so
            importlib.import_module(name)
    gc.freeze()  # commands need not look through all this for what they can free
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing but answers on the pipe
    for line in sys.stdin:
        folder, words, environment, out, err, timeout = json.loads(line)
        child = os.fork()
        if not child:
            answers.close()
            os.environ.clear()
            os.environ.update(environment)
            _become(folder, words, out, err)
        answers.write(json.dumps(_status(child, timeout)) + "\n")
        answers.flush()


def _status(child: int, timeout: float) -> int | None:
    def late(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(int(timeout))
    try:
        _, status = os.waitpid(child, 0)
        return os.waitstatus_to_exitcode(status)
    except TimeoutError:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return None
    finally:
        signal.alarm(0)


def _become(folder: str, words: list[str], out: str, err: str) -> None:
    """Be the console script; never returns."""
    status = 1
    try:
        for path, descriptor in ((os.devnull, 0), (out, 1), (err, 2)):
            flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT
            os.dup2(os.open(path, flags, 0o600), descriptor)
        for descriptor, stream in enumerate(("stdin", "stdout", "stderr")):
            setattr(sys, stream, os.fdopen(descriptor, "w" if descriptor else "r"))
        os.chdir(folder)
        sys.path[0] = str(Path(sys.executable).parent)
        sys.argv = [str(Path(sys.executable).with_name("secateur")), *words]
        from secateur.cli import main

        main()
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            threading._shutdown()
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
