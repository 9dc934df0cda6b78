"""Recipes: the shipped ones are valid, and errors name the key."""

from itertools import pairwise

import pytest

from enet_tvm.errors import UserError
from enet_tvm.training.recipe import Recipe, built_in_recipes, load_recipe
from enet_tvm.training.trainer import learning_rate


def test_every_built_in_recipe_is_valid():
    assert "default" in built_in_recipes()
    for name in built_in_recipes():
        assert isinstance(load_recipe(name), Recipe)


def test_overrides_replace_top_level_keys():
    recipe = load_recipe("default", epochs=3, crop=None)
    assert recipe.epochs == 3
    assert recipe.crop == load_recipe("default").crop
    assert recipe.to_json() != load_recipe("default").to_json()
    assert recipe.to_json() == load_recipe("default", epochs=3).to_json()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = 0", "'epochs' = 0"),
        ("epoch = 5", "'epoch' is not a key"),
        ('crop = "100x100"', "'crop' = '100x100'.*divisible by 8"),
        ("[optimiser]\nlearning_rate = -1", "'optimiser.learning_rate' = -1"),
        ("[optimiser]\nlearning_rate = inf", "'optimiser.learning_rate'"),
        ('[optimiser]\nschedule = "magic"', "'optimiser.schedule' = 'magic'"),
        ("[augmentation]\nscale = [2.0, 1.0]", "'augmentation.scale'"),
        ("[loss]\nfocal = 1", "'loss.focal' is not a key"),
        ("epochs = = 3", "not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_key(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_recipe(path)


@pytest.mark.parametrize("name", ["nothing", "nowhere/mine.toml"])
def test_an_unknown_recipe_names_those_there_are(name):
    with pytest.raises(UserError, match="default"):
        load_recipe(name)


@pytest.mark.parametrize("schedule", ["constant", "cosine", "poly"])
def test_the_learning_rate_warms_up_and_then_follows_its_schedule(schedule):
    recipe = Recipe.model_validate({"optimiser": {"learning_rate": 0.1, "schedule": schedule, "warmup_epochs": 2}})
    rates = [learning_rate(recipe, epoch / 4, 10) for epoch in range(41)]
    assert rates[4] == pytest.approx(0.05)
    assert max(rates) == rates[8] == pytest.approx(0.1)
    assert rates[40] == pytest.approx(0.1 if schedule == "constant" else 0, abs=1e-9)
    assert all(later <= earlier for earlier, later in pairwise(rates[8:]))
