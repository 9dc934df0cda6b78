from __future__ import annotations

import json
from dataclasses import replace

from enet_tvm.bench.runners import Case


def test_cases_travel_as_json(case, compiled_enet):
    for each in (case, replace(case, artifact=compiled_enet.directory, tracker="localhost:9190", key="pi", data="camvid")):
        assert Case.from_dict(json.loads(json.dumps(each.to_dict()))) == each
