from __future__ import annotations

from enet_tvm.compiler.cuda.multiprocessor import multiprocessor_of
from enet_tvm.targets import load_target
from enet_tvm.targets.loading import known_targets


def test_every_gpu_of_the_targets_is_known():
    gpus = [spec.gpu for spec in map(load_target, known_targets()) if spec.gpu is not None]
    assert len(gpus) >= 9
    assert all(multiprocessor_of(gpu.arch) is not None for gpu in gpus)


def test_an_exception_comes_before_its_generation():
    pascal, p100 = multiprocessor_of("sm_61"), multiprocessor_of("sm_60")
    assert pascal is not None
    assert p100 is not None
    assert (pascal.lanes, p100.lanes) == (128, 64)


def test_one_that_is_not_known():
    assert multiprocessor_of("sm_35") is None


def test_where_halves_are_twice_as_fast():
    doubled = {arch for arch in ("sm_53", "sm_60", "sm_61", "sm_62", "sm_70") if multiprocessor_of(arch).doubles_halves}
    assert doubled == {"sm_53", "sm_60", "sm_62", "sm_70"}
    assert all(multiprocessor_of(arch).matrix_products for arch in ("sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90"))
    assert not multiprocessor_of("sm_70").matrix_products
