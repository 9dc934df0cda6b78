"""One runner in a process of its own: ``python -m enet_tvm.bench.measure.worker``, driven by `.footprint`.

Its argument is the job as JSON. It answers in lines of JSON: one when it is warm, with what it took to get there; one after
the line ``run SECONDS`` on its standard input, with what it did in that time. It ends when its standard input does.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import IO, Any

import numpy as np

from enet_tvm.bench.measure.latency import alternate
from enet_tvm.bench.measure.memory import growth_since, mark_memory
from enet_tvm.bench.runners import RUNNERS, Case, RunnerMissingError, open_runner
from enet_tvm.bench.runners.registry import LazyRunner
from enet_tvm.errors import UserError


def serve(job: dict[str, Any], commands: IO[str], answers: IO[str]) -> None:
    """Open the job's runner, warm it up, and run it when told to.

    Parameters
    ----------
    job : dict
        ``runner``, name of the runner; ``case``, result of `Case.to_dict`; ``warm_up``, longest warm-up in seconds.
    commands, answers : text file
        Lines ``run SECONDS``, and lines of JSON, as this module's docstring says.
    """

    def answer(**figures: Any) -> None:
        answers.write(json.dumps(figures) + "\n")
        answers.flush()

    name, case = job["runner"], Case.from_dict(job["case"])
    kind = RUNNERS.get(name)
    if isinstance(kind, LazyRunner):
        kind.load_libraries()
    mark = mark_memory()
    x = np.random.default_rng(0).standard_normal(case.input_shape, np.float32)
    start = time.perf_counter()
    try:
        runner = open_runner(name, case)
    except (UserError, RunnerMissingError) as error:
        answer(problem=str(error))
        return
    with runner:
        loaded = time.perf_counter()
        runner.forward(x)
        done = time.perf_counter()
        alternate({name: lambda: runner.forward(x)}, min_rounds=3, seconds=job["warm_up"], pause=0)
        answer(load_seconds=loaded - start, first_seconds=done - loaded, memory_bytes=growth_since(mark))
        for line in commands:
            seconds = float(line.removeprefix("run "))
            start = time.perf_counter()
            passes = 0
            while passes == 0 or time.perf_counter() - start < seconds:
                runner.forward(x)
                passes += 1
            answer(passes=passes, seconds=time.perf_counter() - start)


if __name__ == "__main__":
    # Libraries print what they like; answers go where nothing else does.
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as answers:
        os.dup2(2, 1)
        serve(json.loads(sys.argv[1]), sys.stdin, answers)
