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


def test_what_a_recipe_leaves_out_is_as_in_the_default_recipe(tmp_path):
    assert Recipe() == load_recipe("default")
    path = tmp_path / "mine.toml"
    path.write_text("epochs = 3\n[optimiser]\nname = 'adam'\n[loss]\nencoder = 0.5")
    changes = ["epochs=3", "optimiser.name=adam", "loss.encoder=0.5"]
    assert load_recipe(path) == load_recipe("default", changes)
    path.write_text("[loss]\nlovasz = 0.5\n[[stages]]\nname = 'one'\ndropout = 0.7")
    (stage,) = load_recipe(path).in_order()
    default = load_recipe("default")
    assert (stage.loss, stage.dropout) == (default.loss.model_copy(update={"lovasz": 0.5}), 0.7)
    assert stage.augmentation == default.augmentation


@pytest.mark.parametrize(("old", "new"), [("more", "warm-restart"), ("mixed", "small-objects")])
def test_recipes_answer_to_the_names_that_they_had(old, new):
    assert load_recipe(old, epochs=2) == load_recipe(new, epochs=2)
    assert old not in built_in_recipes()
    with pytest.raises(UserError) as caught:
        load_recipe("nothing")
    assert new in str(caught.value)
    assert f" {old}," not in str(caught.value)


def test_the_essence_is_what_the_stages_train():
    one = {"epochs": 5, "stages": [{"name": "a"}, {"name": "b", "epochs": 7}]}
    same = {"epochs": 9, "stages": [{"name": "a", "epochs": 5}, {"name": "b", "epochs": 7}]}
    one, same = map(Recipe.model_validate, (one, same))
    assert one.to_json() != same.to_json()
    assert one.essence() == same.essence()
    assert one.essence()["b.epochs"] == 7
    assert one.essence() != Recipe.model_validate({"seed": 1, **one.model_dump(exclude={"seed"})}).essence()


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
        ("[loss]\nclass_weights = [1, -1]", "'loss.class_weights"),
        ('[loss]\nclass_weights = { road = "much" }', "'loss.class_weights"),
        ("[augmentation]\nexposure = [1.0, -1.0]", "'augmentation.exposure'.*first must not be larger"),
        ("[rare]\npaste = 1.5", "'rare.paste' = 1.5"),
        ("[loss]\nfocal = 1", "'loss.focal' is not a key"),
        ("epochs = = 3", "not valid TOML"),
    ],
)
def test_a_wrong_recipe_is_refused_with_its_key(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_recipe(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed = 1\n\nepochs = 0", "mine.toml, line 3: 'epochs' = 0"),
        ("[optimiser]\n# slow\nlearning_rate = -1", "line 3: 'optimiser.learning_rate' = -1"),
        ("[[stages]]\nname = 'a'\n[[stages]]\nname = 'b'\nepoch = 3", "line 5: 'stages.2.epoch' is not a key"),
        ("seed = 1\n[[stages]]\nepochs = 3", "line 2: 'stages.1.name' is missing"),
        ("[[stages]]\nname = 'a'\n[stages.loss]\nlovasz = -1", "line 4: 'stages.1.loss.lovasz' = -1"),
        ("[[stages]]\nname = 'a'\n[[stages]]\nname = 'a'", "line 1: 'stages' do not fit together: two stages"),
        ("[[stages]]\nname = 'a'\npart = 'encoder'", "'stages' do not fit together: the last stage must train"),
        ("[[stages]]\nname = 'a'\npart = 'decoder'", "line 3: 'stages.1.part' = 'decoder'"),
        ("stages = 3", "line 1: 'stages' = 3"),
        ("optimiser = 1\n[[stages]]\nname = 'a'", "line 1: 'optimiser' = 1"),
        ("[augmentation]\nscale = [\n  1.0,\n  'x',\n]", "line 2: 'augmentation.scale.2' = 'x'"),
    ],
)
def test_an_error_names_the_line(tmp_path, text, message):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_recipe(path)
    assert message in str(caught.value)


def test_an_override_is_not_blamed_on_a_line():
    with pytest.raises(UserError, match=r"recipe default: 'epochs' = 0"):
        load_recipe("default", epochs=0)


def test_keys_are_changed_one_by_one():
    changes = ["rare.paste=0.9", "optimiser.learning_rate = 1e-4", "crop=480x360", "augmentation.scale=[1.0, 2.0]", "seed=7"]
    changed, plain = load_recipe("streets", changes), load_recipe("streets")
    assert changed.rare == plain.rare.model_copy(update={"paste": 0.9})
    assert changed.optimiser == plain.optimiser.model_copy(update={"learning_rate": 1e-4})
    assert (changed.crop, changed.seed, changed.augmentation.scale) == ("480x360", 7, (1.0, 2.0))
    assert [stage.optimiser.weight_decay for stage in load_recipe("paper", ["optimiser.weight_decay=0.5"]).in_order()] == [
        0.5
    ] * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("rare.pste=0", "recipe streets: 'rare.pste' is not a key of a recipe"),
        ("rare.paste=2", "recipe streets: 'rare.paste' = 2"),
        ("augmentation.scale=[1.0, 'x']", "recipe streets: 'augmentation.scale.2' = 'x'"),
        ("optimiser=fast", "recipe streets: 'optimiser' = 'fast'"),
        ("seed", "'seed' changes no key"),
        ("=3", "'=3' changes no key"),
        ("a b=3", "'a b=3' changes no key"),
        ("seed=1\nepochs=3", "changes no key"),
    ],
)
def test_a_change_that_does_not_fit_is_refused_without_a_line(change, message):
    with pytest.raises(UserError) as caught:
        load_recipe("streets", [change])
    assert message in str(caught.value)


def test_stages_take_over_what_they_do_not_say():
    content = {"epochs": 7, "optimiser": {"name": "adam", "learning_rate": 0.1}, "stages": [{"name": "a"}, {"name": "b"}]}
    content["stages"][1] |= {"epochs": 3, "optimiser": {"learning_rate": 0.2}}
    first, second = Recipe.model_validate(content).in_order()
    assert (first.epochs, first.optimiser.name, first.optimiser.learning_rate) == (7, "adam", 0.1)
    assert (second.epochs, second.optimiser.name, second.optimiser.learning_rate) == (3, "adam", 0.2)
    recipe = Recipe.model_validate(content)
    assert recipe.total_epochs == 10
    assert Recipe.model_validate_json(recipe.to_json()) == recipe


def test_a_recipe_without_stages_is_one_of_the_whole_network():
    recipe = load_recipe("default")
    (stage,) = recipe.in_order()
    assert stage.part == "network"
    assert stage.model_dump(exclude={"name", "part"}) == recipe.model_dump(exclude={"seed", "drawn_streets", "stages"})


def test_the_papers_recipe():
    recipe = load_recipe("paper")
    encoder, decoder = recipe.in_order()
    assert (encoder.part, decoder.part) == ("encoder", "network")
    for stage in (encoder, decoder):
        assert stage.batch_size == 10
        assert (stage.optimiser.name, stage.optimiser.learning_rate, stage.optimiser.weight_decay) == ("adam", 5e-4, 2e-4)
        assert learning_rate(stage, 0, stage.epochs) == learning_rate(stage, stage.epochs, stage.epochs) == 5e-4
        assert stage.loss.class_weight_constant == 1.02
        assert stage.dropout == 1
        assert stage.average_decay == 0
    assert [stage.epochs for stage in load_recipe("paper", epochs=2).in_order()] == [2, 2]


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
