"""lm-eval's tasks by name, and the LAMBADA tasks on a local file of passages."""

import hashlib
import json
import os
from functools import cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from xpubench.errors import UserError, unknown
from xpubench.spec import AccuracySpec, AccuracyTask

SMOKE = "lambada_smoke"
SMOKE_FILE = Path(str(files("xpubench.accuracy") / "lambada_smoke.jsonl"))
# The smoke passages have the prompt, the target and the metrics of lm-eval's lambada_standard.
DEFINITIONS = {name: name for name in ("lambada_standard", "lambada_openai")} | {SMOKE: "lambada_standard"}
_ON_FILES = " and ".join(name for name in DEFINITIONS if name != SMOKE)


def with_data(task: AccuracyTask) -> AccuracyTask:
    """The task with its local file and the digest of its content. The smoke task always has its own file.
    UserError for a file that does not hold passages."""
    if task.name == SMOKE:
        task = msgspec.structs.replace(task, data=str(SMOKE_FILE))
    if task.data is None:
        return task
    if task.name not in DEFINITIONS:
        raise UserError(f"--acc-data holds passages for {_ON_FILES}, not for {task.name}")
    return msgspec.structs.replace(task, data_sha256=_passages(Path(task.data))[0])


TaskRuns = dict[str, tuple[AccuracySpec, Any]]


def load_tasks(specs: list[AccuracySpec]) -> tuple[TaskRuns, dict[str, list[str]]]:
    """lm-eval's tasks with their data by the ids of their runs, where each task of a group or tag is one run;
    and the ids of the tasks by the id of their group. UserError for a name that lm-eval does not know, and
    for data that are not available."""
    _keep_templates()
    manager = _task_manager([spec.task for spec in specs])
    found: TaskRuns = {}
    groups: dict[str, list[str]] = {}
    for spec in specs:
        own: TaskRuns = {}
        for name, loaded in _load(spec.task, manager).items():
            one = msgspec.structs.replace(spec, task=msgspec.structs.replace(spec.task, name=name))
            own[one.id] = one, loaded
        if list(own) != [spec.id]:
            groups[spec.id] = list(own)
        found |= {one: pair for one, pair in own.items() if one not in found}
    return found, groups


def _load(task: AccuracyTask, manager: Any) -> dict[str, Any]:
    if task.data is not None:
        return {task.name: _on_file(task)}
    from lm_eval.tasks import get_task_dict

    try:
        return _leaves(get_task_dict([task.name], manager))
    except (ConnectionError, FileNotFoundError) as error:
        why = f"the data of {task.name} are not on this machine and the hub is out of reach"
        raise UserError(f"{why}; --acc-data FILE.jsonl gives those of {_ON_FILES}") from error


def _leaves(tasks: dict[Any, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, task in tasks.items():
        found |= _leaves(task) if isinstance(task, dict) else {name: task}
    return found


def _on_file(task: AccuracyTask) -> Any:
    """lm-eval's own definition on the local file's passages. `datasets` gets the passages instead of the
    path, as it would take a file with a known path and time from its cache."""
    import yaml
    from datasets import Dataset, DatasetDict
    from lm_eval.api.task import ConfigurableTask

    assert task.data is not None
    sha256, passages = _passages(Path(task.data))
    if sha256 != task.data_sha256:
        raise UserError(f"--acc-data {task.data} was changed just now; run it again")
    definition = _lambada() / f"{DEFINITIONS[task.name]}.yaml"
    unwanted = ("tag", "dataset_path", "dataset_name", "validation_split")
    fields = yaml.safe_load(definition.read_text()).items()
    config = {name: value for name, value in fields if name not in unwanted}
    dataset = DatasetDict({"test": Dataset.from_list([{"text": text} for text in passages])})
    # Early versions of lm-eval lose the name of a task that is given as a definition.
    return ConfigurableTask(config=config | {"task": task.name, "custom_dataset": lambda **_: dataset})


def _task_manager(tasks: list[AccuracyTask]) -> Any:
    """lm-eval's index of tasks, None where all have local data. UserError for an unknown name."""
    names = [task.name for task in tasks if task.data is None]
    if not names:
        return None
    from lm_eval.tasks import TaskManager

    # An index of all tasks takes ten seconds, one of LAMBADA's alone takes none.
    manager = TaskManager(include_path=str(_lambada()), include_defaults=False)
    if set(names) <= set(manager.all_tasks):
        return manager
    manager = TaskManager()
    known = list(manager.all_tasks)
    for name in names:
        if name not in known:
            raise unknown("task", name, [*known, SMOKE])
    return manager


def _lambada() -> Path:
    """The directory of lm-eval's definitions of LAMBADA."""
    import lm_eval

    return Path(lm_eval.__file__).parent / "tasks" / "lambada"


def _keep_templates() -> None:
    """Has lm-eval compile each template of a task once. It compiles them anew for every item, a millisecond
    each, several times an item."""
    from lm_eval.utils import env

    if "from_string" not in vars(env):
        env.from_string = cache(env.from_string)


def check_installed() -> None:
    """UserError when lm-eval is missing."""
    if find_spec("lm_eval") is None:
        raise UserError("accuracy needs lm-eval, which is not installed; pip install '.[accuracy]'")


def stay_offline() -> None:
    """Keeps the libraries from asking the hub about files in the cache. It must be called before they are
    imported."""
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"):
        os.environ[name] = "1"


def _passages(path: Path) -> tuple[str, list[str]]:
    """The SHA-256 of a file with one {"text": "..."} a line, and its texts. Empty lines at the end are
    ignored. UserError names the first invalid line."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read --acc-data {path}: {error.strerror}") from error
    lines = content.rstrip().splitlines()
    if not lines:
        raise UserError(f"--acc-data {path} is empty")
    passages = [_passage(line, f"{path}, line {number}") for number, line in enumerate(lines, 1)]
    return hashlib.sha256(content).hexdigest(), passages


def _passage(line: bytes, place: str) -> str:
    try:
        passage = json.loads(line)
    except ValueError as error:
        raise UserError(f"{place}: not JSON: {error}") from error
    text = passage.get("text") if isinstance(passage, dict) else None
    # The task's definition splits a passage at the last space.
    context, _, word = text.rpartition(" ") if isinstance(text, str) else ("", "", "")
    if not isinstance(text, str) or not context.strip() or not word.strip():
        form = '{"text": "..."} of two words or more that ends in a space and a word'
        raise UserError(f"{place}: not {form}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"{place}: not valid Unicode: {error.reason}") from error
    return text
