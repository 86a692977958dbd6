import gymnasium
import pytest

from sorl.data.generation.recipes import RECIPES, GeneratedSet
from sorl.environments.names import DATA_KINDS, Task


def test_a_task_is_named_as_ogbench_names_it():
    task = Task("cube-single", "play", 1)
    assert task.env_name == "cube-single-play-singletask-task1-v0"
    assert task.dataset == "cube-single-play-v0"
    assert task.gymnasium_id == "cube-single-singletask-task1-v0"
    assert Task.parse("puzzle-3x3-noisy-singletask-v0") == Task("puzzle-3x3", "noisy", None)


def test_every_name_is_read_back():
    for environment, kinds in DATA_KINDS.items():
        for kind in kinds:
            for number in (1, 5, None):
                task = Task(environment, kind, number)
                assert Task.parse(task.env_name) == task


def test_every_environment_is_registered():
    import ogbench  # noqa: F401  (registers the environments)

    ids = {Task(environment, "", number).gymnasium_id for environment in DATA_KINDS for number in (1, 2, 3, 4, 5, None)}
    assert ids <= set(gymnasium.registry)


def test_an_unknown_name_is_refused_with_the_nearest_known_ones():
    with pytest.raises(
        ValueError, match=r"'cube-singel-play-singletask-task1-v0'.*cube-single-play-singletask-task1-v0"
    ):
        Task.parse("cube-singel-play-singletask-task1-v0")
    with pytest.raises(ValueError, match="nearest known names are scene-play-singletask-task"):
        Task.parse("scene-play-singletask-task6-v0")
    with pytest.raises(ValueError, match="generated.*nearest known names are cube-single-play-v0"):
        GeneratedSet.of("cube-single-pay-v0")


def test_a_data_set_can_be_named_by_any_of_its_tasks():
    wanted = GeneratedSet.of("cube-single-play-singletask-task3-v0", 100, seed=2)
    assert wanted == GeneratedSet.of("cube-single-play-v0", 100, 2) == GeneratedSet("cube-single-play-v0", 100, 2)
    assert wanted.command == "python -m sorl.generate cube-single-play-v0 --episodes 100 --seed 2"
    assert GeneratedSet.of("scene-play-singletask-v0").dataset == "scene-play-v0"


def test_sets_of_other_size_or_seed_live_elsewhere(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    sets = [GeneratedSet("scene-play-v0", episodes, seed) for episodes in (100, 1000) for seed in (0, 1)]
    assert len({wanted.directory for wanted in sets}) == 4
    assert sets[0].directory == tmp_path / "sorl" / "generated" / "scene-play-v0-100-episodes-seed-0"


def test_data_of_trained_experts_cannot_be_generated():
    for name in ("antmaze-large-navigate-v0", "antsoccer-arena-navigate-singletask-task4-v0"):
        with pytest.raises(ValueError, match="trained experts"):
            GeneratedSet.of(name)


def test_counts_that_make_no_data_set_are_refused():
    for episodes, seed in ((0, 0), (-1, 0), (1, -1)):
        with pytest.raises(ValueError, match="make no data set"):
            GeneratedSet.of("scene-play-v0", episodes, seed)


def test_official_numbers_of_episodes_and_steps():
    official = {
        "cube-single-play-v0": (1000, 1001),
        "cube-triple-noisy-v0": (3000, 1001),
        "cube-quadruple-play-v0": (5000, 1001),
        "scene-noisy-v0": (1000, 1001),
        "puzzle-4x4-play-v0": (1000, 1001),
        "puzzle-4x5-play-v0": (3000, 1001),
        "puzzle-4x6-noisy-v0": (5000, 1001),
        "pointmaze-large-navigate-v0": (1000, 1001),
        "pointmaze-giant-navigate-v0": (500, 2001),
        "pointmaze-teleport-stitch-v0": (5000, 201),
    }
    assert {name: (RECIPES[name].episodes, RECIPES[name].steps) for name in official} == official
    assert GeneratedSet.of("puzzle-4x6-noisy-v0").episodes == 5000
    assert len(RECIPES) == 2 * (4 + 4 + 1 + 4)


def test_official_noise():
    noise = {name: (recipe.action_noise, recipe.random_actions) for name, recipe in RECIPES.items()}
    assert noise["cube-double-play-v0"] == (0.1, 0.0)
    assert noise["cube-double-noisy-v0"] == (0.1, 0.1)
    assert noise["scene-noisy-v0"] == (0.1, 0.1)
    assert noise["puzzle-3x3-noisy-v0"] == (0.1, 0.2)
    assert noise["pointmaze-medium-stitch-v0"] == (0.5, 0.0)


def test_validation_sets_hold_a_tenth_and_at_least_one():
    counts = {n: GeneratedSet("scene-play-v0", n).validation_episodes for n in (1, 9, 10, 100, 1000)}
    assert counts == {1: 1, 9: 1, 10: 1, 100: 10, 1000: 100}
