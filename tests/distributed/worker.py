"""One rank of a job that loads one tiny model after the other: python -m tests.distributed.worker DIR OUT"""

import json
import os
import sys
from datetime import timedelta
from pathlib import Path

from tests.distributed.families import FAMILIES, answers, subject
from xpubench import job as jobs
from xpubench.ranks import launch_of
from xpubench.runtimes import autotp
from xpubench.runtimes.base import runtime_class
from xpubench.runtimes.tensor_parallel import follow


def main(models: Path, out: Path) -> None:
    launch = launch_of(os.environ)
    assert launch is not None
    job = jobs.join(launch, timedelta(seconds=60))
    job.watch([], str(out.parent))
    if job.rank != 0:
        follow(job)
    else:
        found = {}
        for name in FAMILIES:
            try:
                runtime = runtime_class("deepspeed").load(subject(models / name, job.size))
                found[name] = answers(runtime) | {"weights": runtime.describe()["ranks"]}
                runtime.close()
            except Exception as error:
                found[name] = {"error": f"{type(error).__name__}: {error}"}
        out.write_text(json.dumps(found))
        job.send(("leave", ()))
    autotp.stop(job, shared_memory=False)
    job.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
