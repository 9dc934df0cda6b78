"""The tasks of a network: its distinct kernels, found by recording what the compiler's pipeline asks for."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import tvm
from tvm import s_tir, tirx

from enet_tvm.artifact import Kernel
from enet_tvm.compiler.kernels.common.choices import Choices
from enet_tvm.compiler.kernels.common.launch import Launch
from enet_tvm.compiler.kernels.common.template import Template
from enet_tvm.compiler.kernels.gpu.half_storage import with_half_storage
from enet_tvm.compiler.passes.schedule_remaining import is_blocks, schedule_for_cpu
from enet_tvm.compiler.tuning_keys import fingerprint, plain, point_dict, template_json, template_key

POINT = "enet_tvm.point"
"""Annotation of a record's trace: the point, as ``name=value`` joined by blanks."""
KEY = "enet_tvm.key"
TEMPLATE = "enet_tvm.template"


@dataclass(frozen=True, eq=False)
class Task:
    """A kernel of a template, launched once or more in a forward pass.

    Attributes
    ----------
    key : str
        Key of the task in tuning logs; see `enet_tvm.compiler.tuning_keys`.
    name : str
        Name of the kernel, for people.
    launches : tuple of int
        Indices of its launches in the forward pass, from 0.
    template : Template
        Template that makes the kernel.
    taken : object
        Point that is taken without tuning, where it is not the template's default: that does not fit into a GPU's registers.
    halves : frozenset of int
        Numbers of the kernel's arguments that the network stores as float16 (`enet_tvm.compiler.kernels.common.launch.Launch`).
    """

    key: str
    name: str
    launches: tuple[int, ...]
    template: Template
    taken: Any = None
    halves: frozenset[int] = frozenset()

    @functools.cached_property
    def points(self) -> list[Any]:
        """The points worth measuring, the default first."""
        points = self.template.points()
        return points if self.taken is None else [self.taken, *(point for point in points if point != self.taken)]

    @property
    def default(self) -> Any:
        """The point that is taken without tuning."""
        return self.points[0]

    def module(self, point: Any) -> tvm.IRModule:
        """Return the kernel at a point, alone in a module."""
        kernel = self.template.kernel(point)
        return alone(with_half_storage(kernel, self.halves) if self.halves else kernel)

    @functools.cached_property
    def workload(self) -> tvm.IRModule:
        """The module that stands for the task in MetaSchedule's database.

        The kernels are loops without blocks, which MetaSchedule cannot schedule and need not: what is recorded is an
        empty function that says by its attributes what it stands for, and a trace that says by an annotation at which
        point the template makes it.
        """
        body = s_tir.SBlockRealize([], True, s_tir.SBlock([], [], [], "root", tirx.Evaluate(0)))
        function = tirx.PrimFunc([], body).with_attr("global_symbol", "main")
        function = function.with_attr(KEY, self.key).with_attr(TEMPLATE, template_json(self.template))
        return tvm.IRModule({"main": function})

    def schedule(self, point: Any) -> s_tir.Schedule:
        """Return the workload, marked with a point."""
        schedule = s_tir.Schedule(self.workload)
        schedule.annotate(schedule.get_sblock("root"), POINT, point_text(point))
        return schedule


@dataclass(frozen=True, eq=False)
class GenericTask:
    """A function that no template made: MetaSchedule's own rules apply.

    Attributes
    ----------
    key, name, launches
        Key, name and indices of launches, as in `Task`.
    function : tvm.tirx.PrimFunc
        Function before scheduling, as `plain` returns it.
    lanes : int
        Number of float32 lanes of the target's vector registers.
    """

    key: str
    name: str
    launches: tuple[int, ...]
    function: tvm.tirx.PrimFunc
    lanes: int

    @classmethod
    def of(cls, name: str, launches: tuple[int, ...], function: tvm.tirx.PrimFunc, lanes: int) -> GenericTask:
        """Return the task of a function as the pipeline shows it to `Choices.schedule`."""
        function = plain(function)
        return cls(fingerprint(function), name, launches, function, lanes)

    @functools.cached_property
    def workload(self) -> tvm.IRModule:
        """The function before scheduling, alone in a module."""
        return alone(self.function)

    @functools.cached_property
    def default_module(self) -> tvm.IRModule:
        """The function as the pipeline schedules it without tuning, alone in a module."""
        return alone(schedule_for_cpu(self.function, self.lanes))


def alone(function: tvm.tirx.PrimFunc) -> tvm.IRModule:
    """Return a module of one function, which can be called from outside."""
    return tvm.IRModule({"main": function.with_attr("global_symbol", "main")})


def point_text(point: Any) -> str:
    """Return a point as text without quotation marks, which a trace does not escape."""
    return " ".join(f"{name}={json.dumps(value)}" for name, value in point_dict(point).items())


class Recorder(Choices):
    """Choices of the defaults everywhere, which record the templates and functions that were asked for."""

    def __init__(self) -> None:
        self.templates: list[Template] = []
        self.functions: dict[str, tvm.tirx.PrimFunc] = {}

    def point(self, template: Template) -> Any:
        """Return the default point, and record the template."""
        self.templates.append(template)
        return template.default

    def schedule(self, name: str, function: tvm.tirx.PrimFunc) -> None:
        """Return None, so that the pipeline schedules the function, and record it."""
        self.functions[name] = function


def find_gpu_tasks(launches: Sequence[Launch]) -> list[Task]:
    """Return the tasks of a network on a GPU, in the order of their first launch: kernels with more than one point.

    Parameters
    ----------
    launches : sequence of Launch
        Launches of the network compiled untuned. Of several of a template that differ in which of their tensors are float16,
        the first counts.
    """
    grouped: dict[Template, list[int]] = {}
    for place, launch in enumerate(launches):
        if launch.template is not None and len(launch.template.points()) > 1:
            grouped.setdefault(launch.template, []).append(place)
    return [
        Task(
            *(template_key(template), template.name, tuple(where), template),
            taken=launches[where[0]].point,
            halves=launches[where[0]].halves,
        )
        for template, where in grouped.items()
    ]


def find_tasks(asked: Recorder, launches: Sequence[Kernel], lanes: int) -> tuple[list[Task], list[GenericTask]]:
    """Return the tasks of a network, in the order of their first launch.

    Parameters
    ----------
    asked : Recorder
        Choices that were given to `enet_tvm.compiler.pipeline.compile_module`.
    launches : sequence of Kernel
        Launches in the manifest of the compiled network.
    lanes : int
        Number of float32 lanes of the target's vector registers.
    """
    # Templates are asked for in launch order; what else the project launches (pooling) has no arithmetic to count.
    places = [place for place, launch in enumerate(launches) if launch.flops]
    grouped: dict[Template, list[int]] = {}
    for template, place in zip(asked.templates, places, strict=True):
        grouped.setdefault(template, []).append(place)
    tasks = [Task(template_key(t), t.name, tuple(where), t) for t, where in grouped.items()]
    generic = []
    for name, function in asked.functions.items():
        where = tuple(place for place, launch in enumerate(launches) if launch.name == name)
        if where and is_blocks(function):
            generic.append(GenericTask.of(name, where, function, lanes))
    return tasks, generic
