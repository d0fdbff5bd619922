"""Command lines in processes of their own, each forked from one that has imported the libraries.

Importing torch, transformers, IPEX and DeepSpeed takes several times as long as running a tiny model. The
process that forks imports them once and runs nothing, so that a command starts as it would in a new process
whose environment is that of the fork. None of the project's own modules is imported before the fork, and
what IPEX reads from the environment at its import (LLM_ACC_TEST, IPEX_COMPUTE_ENG) must be set for the
process that forks.

`python -m tests.ipex_xpu.zygote` reads one request a line, `{"argv": [...], "env": {...}, "out": FILE, "err":
FILE}`, and answers each with its exit status on a line.
"""

import importlib
import json
import os
import runpy
import subprocess
import sys
import traceback
from pathlib import Path
from typing import IO, Any, Self

ROOT = Path(__file__).parents[2]
LIBRARIES = (
    "torch",
    "transformers.generation.utils",
    "transformers.models.llama.modeling_llama",
    "intel_extension_for_pytorch.transformers.models.xpu.optimize_transformers.Converter",
    "neural_compressor.transformers",
    "scipy.stats",
)


class Zygote:
    """The process that forks, seen from outside."""

    def __init__(self, python: str, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [python, "-m", "tests.ipex_xpu.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            cwd=ROOT,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends the process."""
        self._pipe(self._process.stdin).close()
        self._process.wait()

    def run(self, arguments: list[str], environment: dict[str, str], directory: Path) -> tuple[int, str, str]:
        """The exit status, standard output and standard error of `python ARGUMENTS`, the first of which is a
        script, with further variables of its environment."""
        out, err = directory / "stdout", directory / "stderr"
        request = {"argv": arguments, "env": environment, "out": str(out), "err": str(err)}
        stdin = self._pipe(self._process.stdin)
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        answer = self._pipe(self._process.stdout).readline()
        if not answer:
            raise RuntimeError("the process that forks has ended; its standard error says why")
        return int(answer), out.read_text(), err.read_text()

    @staticmethod
    def _pipe(pipe: IO[str] | None) -> IO[str]:
        assert pipe is not None
        return pipe


def _run(request: dict[str, Any]) -> int:
    """Runs a request in this process, a fork, and gives its exit status."""
    for path, descriptor in ((request["out"], 1), (request["err"], 2)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.dup2(file, descriptor)
    os.environ.update(request["env"])
    sys.argv = request["argv"]
    code: Any = 0
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as leaving:
        code = leaving.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    if isinstance(code, str):
        os.write(2, code.encode())
        code = 1
    return code or 0


def main() -> None:
    """Serves requests until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print while they are imported
    for library in LIBRARIES:
        importlib.import_module(library)
    for line in sys.stdin:
        process = os.fork()
        if process == 0:
            os._exit(_run(json.loads(line)))
        _, status = os.waitpid(process, 0)
        answers.write(f"{os.waitstatus_to_exitcode(status)}\n")
        answers.flush()


if __name__ == "__main__":
    main()
