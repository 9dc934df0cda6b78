from __future__ import annotations

import json
from dataclasses import replace

from enet_tvm.bench.runners import Workload


def test_workloads_travel_as_json(workload, compiled_enet):
    for each in (workload, replace(workload, artifact=compiled_enet.directory, tracker="localhost:9190", key="pi")):
        assert Workload.from_dict(json.loads(json.dumps(each.to_dict()))) == each
