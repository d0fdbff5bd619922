"""lm-eval's tasks by name, and the LAMBADA ones on a local file of passages."""

import hashlib
import json
import os
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from xpubench.errors import UserError, unknown
from xpubench.spec import AccuracyTask

SMOKE = "lambada_smoke"
SMOKE_FILE = Path(str(files("xpubench.accuracy") / "lambada_smoke.jsonl"))
# The smoke passages have the prompt, the target and the metrics of lm-eval's lambada_standard.
DEFINITIONS = {
    SMOKE: "lambada_standard",
    "lambada_standard": "lambada_standard",
    "lambada_openai": "lambada_openai",
}


def with_data(task: AccuracyTask) -> AccuracyTask:
    """The task with its local file and the hash of its content; UserError for a file that is not passages."""
    if task.name == SMOKE and task.data is None:
        task = msgspec.structs.replace(task, data=str(SMOKE_FILE))
    if task.data is None:
        return task
    if task.name not in DEFINITIONS:
        raise UserError(f"--acc-data holds passages for {', '.join(DEFINITIONS)}, not for {task.name}")
    return msgspec.structs.replace(task, data_sha256=_check_passages(Path(task.data)))


def loadable(task: AccuracyTask) -> Any:
    """What `simple_evaluate` takes as the task: its name, or lm-eval's own definition on the local file."""
    if task.data is None:
        return task.name
    import lm_eval
    import yaml
    from lm_eval.api.task import ConfigurableTask

    definition = Path(lm_eval.__file__).parent / "tasks" / "lambada" / f"{DEFINITIONS[task.name]}.yaml"
    config: dict[str, Any] = yaml.safe_load(definition.read_text())
    for name in ("tag", "dataset_name", "validation_split"):
        config.pop(name, None)
    # A ready task: early versions lose the name of one that is given as its definition.
    return ConfigurableTask(
        config=config
        | {
            "task": task.name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"test": str(Path(task.data).resolve())}},
        }
    )


def task_manager(tasks: list[AccuracyTask]) -> Any:
    """lm-eval's index of tasks, empty where all are local; UserError for a name that it does not know."""
    from lm_eval.tasks import TaskManager

    names = [task.name for task in tasks if task.data is None]
    if not names:
        return TaskManager(include_defaults=False)
    manager = TaskManager()
    known = list(manager.all_tasks)
    for name in names:
        if name not in known:
            raise unknown("task", name, [*known, SMOKE])
    return manager


def check_installed() -> None:
    """UserError when lm-eval is missing."""
    if find_spec("lm_eval") is None:
        raise UserError("accuracy needs lm-eval, which is not installed; pip install '.[accuracy]'")


def stay_offline() -> None:
    """Keeps the libraries from asking the hub about files that lie here; before they are imported."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ[name] = "1"


def _check_passages(path: Path) -> str:
    """The sha256 of a file with one {"text": "..."} a line; UserError names the first line that is not."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read --acc-data {path}: {error.strerror}") from error
    lines = content.splitlines()
    if not any(line.strip() for line in lines):
        raise UserError(f"--acc-data {path} is empty")
    for number, line in enumerate(lines, 1):
        try:
            passage = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: not JSON: {error}") from error
        text = passage.get("text") if isinstance(passage, dict) else None
        if not isinstance(text, str) or len(text.split(" ")) < 2:
            raise UserError(f'{path}, line {number}: not {{"text": "..."}} of two words or more')
    return hashlib.sha256(content).hexdigest()
