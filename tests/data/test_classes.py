"""Class sets."""

import pytest

from enet_tvm.data.classes import CAMVID, CITYSCAPES, ClassSet, require_classes
from enet_tvm.errors import UserError

TWO = ("a", "b"), ((0, 0, 0), (1, 1, 1)), 255


def test_categories_and_instances_are_optional():
    assert CAMVID.category_names == CAMVID.instance_classes == ()
    whole = ClassSet("two", *TWO, categories=("x", "x"), instance_shares=(0, 0.5))
    assert whole.category_names == ("x",)
    assert whole.instance_classes == ("b",)
    assert hash(whole) != hash(ClassSet("two", *TWO))


@pytest.mark.parametrize("extra", [{"categories": ("x",)}, {"instance_shares": (0.1, 0.2, 0.3)}])
def test_what_there_is_must_be_there_for_every_class(extra):
    with pytest.raises(ValueError, match="2 names but"):
        ClassSet("two", *TWO, **extra)


def test_a_network_of_other_classes_is_refused():
    require_classes(CAMVID.names, CAMVID, "x")
    require_classes([f"class {number}" for number in range(len(CAMVID))], CAMVID, "x")
    with pytest.raises(UserError, match="x knows 19 classes and the data set camvid has 11"):
        require_classes(CITYSCAPES.names, CAMVID, "x")
    with pytest.raises(UserError, match="x has 'lawn' as class 5 and the data set camvid has 'tree'"):
        require_classes([{"tree": "lawn"}.get(name, name) for name in CAMVID.names], CAMVID, "x")
