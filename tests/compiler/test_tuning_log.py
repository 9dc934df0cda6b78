"""Logs: found, believed only where they fit, and otherwise a sentence; compiling with one gives the same every time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from torch import nn
from tvm import te, topi

from enet_tvm.compiler import compile as compiler
from enet_tvm.compiler import tuning_log as log_module
from enet_tvm.compiler.compile import CompileRequest, compile_artifact
from enet_tvm.compiler.kernels.cpu.conv2d import Conv2DTemplate
from enet_tvm.compiler.kernels.cpu.register_tile import VectorUnit
from enet_tvm.compiler.ops import FusedConv2D, Layout
from enet_tvm.compiler.tuning_keys import fingerprint, plain, template_key
from enet_tvm.compiler.tuning_log import (
    FunctionChoice,
    KernelChoice,
    LoggedChoices,
    LoggedWorkload,
    LogTarget,
    Parity,
    TuningLog,
    find_log,
    read_log,
    use_log,
)
from enet_tvm.compiler.workload import Workload
from enet_tvm.data.classes import CAMVID
from enet_tvm.errors import UserError
from enet_tvm.files import sha256
from enet_tvm.networks import WeightsInfo, save_network
from enet_tvm.size import Size
from enet_tvm.targets import load_target
from enet_tvm.version import stack_versions

SPEC = FusedConv2D((1, 8, 5, 30), (1, 16, 5, 30), (1, 1), (1, 1), (0, 0), (1, 1), data_layout=Layout(4), out_layout=Layout(4))
TEMPLATE = Conv2DTemplate(SPEC, VectorUnit(4, 16))
WANTED = LoggedWorkload(network="enet", width=64, height=48, batch=1, threads=2)
X86 = load_target("x86-64-v3")


def kernel(template: Conv2DTemplate = TEMPLATE, point: dict | None = None, **changes) -> KernelChoice:
    chosen = template.points()[1]
    return KernelChoice(
        **{
            "key": template_key(template),
            "name": template.name,
            "launches": 1,
            "point": point or {"pixels": chosen.pixels, "blocks": chosen.blocks},
            "default": {"pixels": template.default.pixels, "blocks": template.default.blocks},
            "point_us": 9.0,
            "default_us": 10.0,
            "trials": 5,
            **changes,
        }
    )


def make_log(**changes) -> TuningLog:
    stack = stack_versions()
    fields = {
        "workload": WANTED,
        "target": LogTarget.of(X86),
        "apache_tvm": stack["apache-tvm"],
        "apache_tvm_ffi": stack["apache-tvm-ffi"],
        "enet_tvm": "0.1.0",
        "host": "a processor",
        "date": "2026-01-02T03:04:05+00:00",
        "trials": 5,
        "failed": 0,
        "minutes": 1.0,
        "before_ms": 10.0,
        "after_ms": 9.0,
        "parity": Parity(pictures=2, inputs="streets", label_agreement=1.0, max_abs_logit_diff=0.0),
        "kernels": (kernel(),),
    }
    return TuningLog(**{**fields, **changes})


def save(log: TuningLog, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "log.json").write_text(log.model_dump_json())
    return directory


@pytest.fixture(autouse=True)
def only_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Logs are looked for in two empty directories: the user's and the shipped."""
    monkeypatch.setattr(log_module, "search_roots", lambda: [tmp_path / "user", tmp_path / "shipped"])
    return tmp_path


def test_chosen_point():
    choices = LoggedChoices(make_log())
    assert choices.point(TEMPLATE) == TEMPLATE.points()[1] != TEMPLATE.default
    other = Conv2DTemplate(SPEC, VectorUnit(8, 16))
    assert choices.point(other) == other.default
    assert (len(choices.known), len(choices.asked)) == (1, 2)


@pytest.mark.parametrize("point", [{"pixels": 999, "blocks": 1}, {"pixels": 0, "blocks": 0}, {"lanes": 4}, {"pixels": "x"}])
def test_a_point_that_does_not_exist_is_not_taken(point):
    choices = LoggedChoices(make_log(kernels=(kernel(point=point),)))
    assert choices.point(TEMPLATE) == TEMPLATE.default
    assert not choices.known


def test_a_template_that_makes_other_kernels_is_not_known(monkeypatch):
    log = make_log()
    original = Conv2DTemplate.kernel
    monkeypatch.setattr(Conv2DTemplate, "kernel", lambda self, point: original(self, point).with_attr("tirx.noalias", False))
    choices = LoggedChoices(log)
    assert choices.point(TEMPLATE) == TEMPLATE.default
    assert not choices.known


def test_written_and_read(tmp_path):
    assert read_log(save(make_log(), tmp_path / "log")) == make_log()


def test_what_is_no_log(tmp_path):
    with pytest.raises(UserError, match=r"is not a tuning log: it has no log\.json"):
        read_log(tmp_path)
    (tmp_path / "log.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        read_log(tmp_path)
    for text in ("[]", '{"schema_version": 99}'):
        (tmp_path / "log.json").write_text(text)
        with pytest.raises(UserError, match="has schema version"):
            read_log(tmp_path)
    (tmp_path / "log.json").write_text(json.dumps({**make_log().model_dump(mode="json"), "after_ms": -1}))
    with pytest.raises(UserError, match=r"not a complete tuning log \(after_ms"):
        read_log(tmp_path)
    save(make_log(apache_tvm="0.1.2"), tmp_path)
    with pytest.raises(UserError, match=r"was made with TVM 0.1.2, and .* make it again with 'enet-tvm tune'"):
        read_log(tmp_path)


def test_found_by_name_and_threads(tmp_path):
    shipped, user = (tmp_path / root / "tuning_logs" / "x86-64-v3" for root in ("shipped", "user"))
    assert find_log(WANTED, X86).log is None
    save(make_log(workload=WANTED.model_copy(update={"threads": 4})), shipped / "enet-64x48-4threads")
    assert find_log(WANTED, X86).directory == shipped / "enet-64x48-4threads"
    save(make_log(), shipped / "enet-64x48-2threads")
    assert find_log(WANTED, X86).directory == shipped / "enet-64x48-2threads"
    save(make_log(), user / "enet-64x48-2threads")
    found = find_log(WANTED, X86)
    assert (found.directory, found.problems) == (user / "enet-64x48-2threads", [])
    assert find_log(WANTED.model_copy(update={"width": 72}), X86).log is None
    assert find_log(WANTED.model_copy(update={"batch": 2}), X86).log is None
    assert find_log(WANTED.model_copy(update={"dtype": "int8"}), X86).log is None
    assert find_log(WANTED, load_target("x86-64-v2")).log is None


def test_what_was_simulated_serves_its_own_target(tmp_path):
    """A Cortex-A76 takes what was measured on a Cortex-A72, and not what the A72's model says."""
    rpi4, rpi5 = load_target("rpi4"), load_target("rpi5")
    fields = {"target": LogTarget.of(rpi4), "modelled": True, "simulated": True, "parity": None}
    directory = tmp_path / "user/tuning_logs/rpi4/enet-64x48-2threads"
    save(make_log(**fields), directory)
    assert find_log(WANTED, rpi4).directory == directory
    assert find_log(WANTED, rpi5).log is None
    with pytest.raises(ValueError, match="a log that was simulated is a modelled one"):
        make_log(simulated=True)
    save(make_log(target=LogTarget.of(rpi4)), directory)
    assert find_log(WANTED, rpi5).directory == directory


def test_measured_comes_before_modelled(tmp_path):
    """Whoever's it is, of whatever number of threads; and of a GPU's target its own alone."""
    tx1 = load_target("jetson-tx1")
    shipped, user = (tmp_path / root / "tuning_logs" / "jetson-tx1" for root in ("shipped", "user"))
    modelled = {"target": LogTarget.of(tx1), "modelled": True, "parity": None}
    save(make_log(**modelled), user / "enet-64x48-2threads")
    found = find_log(WANTED, tx1)
    assert found.directory == user / "enet-64x48-2threads"
    assert found.log is not None
    assert found.log.modelled
    measured = make_log(target=LogTarget.of(tx1), workload=WANTED.model_copy(update={"threads": 4}))
    save(measured, shipped / "enet-64x48-4threads")
    assert find_log(WANTED, tx1).directory == shipped / "enet-64x48-4threads"
    assert list(log_module.classes_of(tx1)) == []
    assert find_log(WANTED, load_target("jetson-nano")).log is None


def test_a_log_of_another_gpu_is_a_sentence(tmp_path):
    tx1 = load_target("jetson-tx1")
    assert tx1.gpu is not None
    other = tx1.model_copy(update={"gpu": tx1.gpu.model_copy(update={"arch": "sm_61"})})
    save(make_log(target=LogTarget.of(other)), tmp_path / "user" / "tuning_logs" / "jetson-tx1" / "enet-64x48-2threads")
    (problem,) = find_log(WANTED, tx1).problems
    assert "was made for jetson-tx1 as sm_61 cortex-a57, which is sm_53 cortex-a57 now" in problem


def test_what_was_measured_ran():
    with pytest.raises(ValueError, match="a log that was measured has its parity"):
        make_log(parity=None)


def test_a_processors_log_says_nothing_of_gpus():
    """So that sessions before there were any go on."""
    assert set(LogTarget.of(X86).model_dump(mode="json")) == {"name", "triple", "mcpu", "mattr"}


def test_a_broken_log_is_a_sentence_and_the_next_one_is_taken(tmp_path):
    broken = tmp_path / "user" / "tuning_logs" / "x86-64-v3" / "enet-64x48-2threads"
    broken.mkdir(parents=True)
    (broken / "log.json").write_text("{")
    good = save(make_log(), tmp_path / "shipped" / "tuning_logs" / "x86-64-v3" / "enet-64x48-2threads")
    found = find_log(WANTED, X86)
    assert found.directory == good
    assert len(found.problems) == 1
    assert "not valid JSON" in found.problems[0]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"target": LogTarget.of(X86.model_copy(update={"mcpu": "haswell"}))}, "was made for x86-64-v3 as haswell"),
        ({"workload": WANTED.model_copy(update={"width": 640})}, "its directory is called otherwise"),
    ],
)
def test_a_log_of_something_else_is_a_sentence(tmp_path, change, complaint):
    save(make_log(**change), tmp_path / "user" / "tuning_logs" / "x86-64-v3" / "enet-64x48-2threads")
    found = find_log(WANTED, X86)
    assert found.log is None
    assert complaint in found.problems[0]
    assert "tuning: no log" in found.sentence()


def test_this_machine_takes_the_log_of_its_class(tmp_path):
    native = load_target("native")
    classes = list(log_module.classes_of(native))
    if not classes:
        pytest.skip("no shipped target has this machine's vector registers")
    assert all(load_target(name).architecture == native.architecture for name in classes)
    spec = load_target(classes[0])
    place = save(make_log(target=LogTarget.of(spec)), tmp_path / "shipped" / "tuning_logs" / spec.name / "enet-64x48-2threads")
    assert find_log(WANTED, native).directory == place
    own = save(make_log(target=LogTarget.of(native)), tmp_path / "user" / "tuning_logs" / "native" / "enet-64x48-2threads")
    assert find_log(WANTED, native).directory == own


def test_a_processor_takes_the_log_of_its_class(tmp_path):
    """Zen 4 has all that x86-64-v4 asks for; not the other way round, nor with shorter registers."""
    for name, spec in (("x86-64-v3", X86), ("x86-64-v4", load_target("x86-64-v4"))):
        save(make_log(target=LogTarget.of(spec)), tmp_path / "shipped" / "tuning_logs" / name / "enet-64x48-2threads")
    found = find_log(WANTED, load_target("zen4"))
    assert found.directory == tmp_path / "shipped" / "tuning_logs" / "x86-64-v4" / "enet-64x48-2threads"
    assert not found.problems
    own = save(make_log(target=LogTarget.of(load_target("zen4"))), tmp_path / "user/tuning_logs/zen4/enet-64x48-2threads")
    assert find_log(WANTED, load_target("zen4")).directory == own
    assert "zen4" not in log_module.classes_of(load_target("x86-64-v4"))
    assert find_log(WANTED, load_target("x86-64-v2")).log is None


def test_a_trace_that_does_not_fit_is_not_taken():
    x = te.placeholder((4, 64), name="x")
    function = te.create_prim_func([x, topi.nn.relu(x)])
    trace = [[["GetSBlock", [], ["no_such_block", "main"], ["b0"]]], []]
    choice = FunctionChoice(
        key=fingerprint(plain(function)), name="relu", launches=1, trace=trace, point_us=1.0, default_us=2.0, trials=1
    )
    choices = LoggedChoices(make_log(functions=(choice,)))
    assert choices.schedule("relu", function) is None
    assert not choices.known
    assert len(choices.asked) == 1


class Asking(LoggedChoices):
    """Remembers the templates."""

    def __init__(self) -> None:
        super().__init__(make_log(kernels=()))
        self.templates: list = []

    def point(self, template):
        self.templates.append(template)
        return template.default


@pytest.fixture
def network(tmp_path: Path, randomised, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Weights that are said to be ENet's, of a network with six kinds of kernels that compiles in no time."""
    kernels = [
        nn.Conv2d(16, 16, size, padding=step * (size // 2), dilation=step) for size, step in ((1, 1), (3, 1), (3, 2), (5, 1))
    ]
    network = randomised(nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), *kernels, nn.Conv2d(16, len(CAMVID), 1)))
    monkeypatch.setattr(compiler, "load_network", lambda path: network)
    weights = tmp_path / "enet.safetensors"
    save_network(network, WeightsInfo("enet", CAMVID.names, CAMVID.palette, (0.5,) * 3, (0.2,) * 3), weights)
    return weights


@pytest.mark.slow
def test_compile_with_a_log(network, tmp_path):
    request = CompileRequest(Workload(network, Size(64, 48), load_target("native"), threads=2), command="pytest")
    asked = Asking()
    untuned = compile_artifact(request, tmp_path / "untuned", choices=asked)
    assert untuned.tuning is None
    distinct = list(dict.fromkeys(template for template in asked.templates if len(template.points()) > 1))
    kernels = tuple(
        KernelChoice(
            key=template_key(template),
            name=template.name,
            launches=1,
            point=vars(template.points()[-1]),
            default=vars(template.default),
            point_us=1.0,
            default_us=2.0,
            trials=2,
        )
        for template in distinct[:5]
    )
    target = LogTarget.of(request.workload.target)
    directory = save(
        make_log(kernels=kernels, target=target), tmp_path / "user" / "tuning_logs" / "native" / "enet-64x48-2threads"
    )
    said: list[str] = []
    tuned = compile_artifact(request, tmp_path / "tuned", say=said.append)
    total = len(set(asked.templates))
    assert said == [f"tuning: 5 of {total} kernels by {directory} of 2026-01-02, the default for the other {total - 5}"]
    assert tuned.tuning is not None
    assert (tuned.tuning.kernels, tuned.tuning.of, tuned.tuning.threads) == (5, total, 2)
    assert tuned.tuning.log == "native/enet-64x48-2threads"
    assert "modelled" not in (tmp_path / "tuned" / "manifest.json").read_text()
    assert tuned.hashes.library != untuned.hashes.library
    again = compile_artifact(request, tmp_path / "again")
    assert (again.hashes.library, again.tuning) == (tuned.hashes.library, tuned.tuning)
    without = CompileRequest(Workload(network, Size(64, 48), load_target("native")), command="pytest", untuned=True)
    assert compile_artifact(without, tmp_path / "without").hashes.library == sha256(tmp_path / "untuned" / untuned.library)


def test_compile_with_a_stale_log(network, tmp_path):
    stale = save(make_log(kernels=(kernel(key="0" * 16),)), tmp_path / "stale")
    request = CompileRequest(Workload(network, Size(64, 48), load_target("native")), tuning_log=stale)
    said: list[str] = []
    manifest = compile_artifact(request, tmp_path / "artifact", say=said.append)
    assert manifest.tuning is None
    assert len(said) == 1
    assert said[0].startswith(f"tuning: {stale} knows none of the ")
    assert "make it again" in said[0]
    with pytest.raises(UserError, match="is not a tuning log"):
        use_log(tmp_path / "nowhere")
