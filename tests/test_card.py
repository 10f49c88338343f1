"""What the model card tells, from config.json alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from csrnet_hub.card import (
    PLACEHOLDER,
    card_of,
    has_other_figures,
    is_unedited,
    may_be_replaced,
    read_card,
    sealed,
    unsealed,
)
from csrnet_hub.resources import DEFAULT_MODEL, resource


@pytest.fixture
def config() -> dict[str, Any]:
    """The config.json of the shipped model, which train.fit wrote."""
    folder = resource(DEFAULT_MODEL)
    assert folder is not None
    config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["training_record"].pop("init", None)
    config["training_record"]["frontend"] = "a VGG"
    return config


def test_the_shipped_card_is_what_the_template_gives() -> None:
    folder = resource(DEFAULT_MODEL)
    assert folder is not None
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    card = (Path(folder) / "README.md").read_text(encoding="utf-8")
    assert card.strip() == card_of(config).strip(), "write it anew: csrnet_hub.card.card_of(config)"


def test_the_metadata_name_no_task_and_no_licence_and_carry_the_errors(
    config: dict[str, Any],
) -> None:
    config["metrics"] = {"test": {"dataset": "ShanghaiTech A", "images": 182, "mae": 68.25}}
    data = ModelCard(card_of(config)).data
    assert {"crowd-counting", "density-estimation", "csrnet"} <= set(data.tags)
    assert data.pipeline_tag is None
    assert data.license is None
    (result,) = data.eval_results
    assert (result.dataset_name, result.dataset_split) == ("ShanghaiTech A", "test")
    assert (result.metric_type, result.metric_value) == ("mae", 68.25)


def test_errors_are_told_by_split_and_by_range_of_counts(config: dict[str, Any]) -> None:
    errors = {"images": 60, "mae": 100.0, "rmse": 150.0, "nae": 0.25, "bias": -3.0}
    few: dict[str, Any] = {"images": 7, "mae": 12.34, "rmse": 20.0, "nae": None, "bias": 1.0}
    few["mae_interval"] = [8.0, 16.0]
    config["metrics"] = {
        "validation": {**errors, "ranges": {"0-100": few}, "interval_coverage": 0.917},
        "test": {**errors, "mae": 99.9},
    }
    card = card_of(config)
    assert "| validation | 60 | 100.0 | 150.0 | 0.250 | -3.0 |" in card
    assert "| test | 60 | 99.9 |" in card
    assert "| 0-100 | 7 | 12.3 (8.0 to 16.0) | 20.0 | – | +1.0 |" in card
    assert "in 92% of the validation images" in card
    assert "chose the checkpoint" in card


def test_a_joint_model_tells_its_errors_on_each_part_and_how_they_were_mixed(
    config: dict[str, Any],
) -> None:
    errors = {"images": 60, "mae": 100.0, "rmse": 150.0, "nae": 0.25, "bias": -3.0}
    both = {**errors, "images": 120, "parts": {"part_A": errors, "part_B": {**errors, "mae": 9.9}}}
    config["metrics"] = {"validation": both}
    config["training_record"] |= {"repeat": {"part_A": 2}, "backend_first": 1200}
    card = card_of(config)
    assert "| validation | 120 | 100.0 |" in card
    assert "| validation, part_B alone | 60 | 9.9 |" in card
    assert "photographs of part_A 2 times as often" in card
    assert "back end was trained alone for the first 1200 steps" in card
    assert "of the training images of each data set, one drawn" in card


def test_errors_on_photographs_that_a_model_had_seen_are_not_claimed_on_the_hub(
    config: dict[str, Any],
) -> None:
    config["training_record"].pop("refit", None)
    config["metrics"] = {"validation": {"images": 60, "mae": 9.0, "rmse": 15.0, "nae": 0.02}}
    (*own, _) = ModelCard(card_of(config)).data.eval_results
    assert own
    config["training_record"] |= {"seen": 40}
    card = card_of(config)
    assert "40 of them had been trained on" in card
    assert not ModelCard(card).data.eval_results


def test_a_refit_says_whose_errors_it_shows_and_claims_none_on_the_hub(
    config: dict[str, Any],
) -> None:
    errors = {"images": 60, "mae": 100.0, "rmse": 150.0, "nae": 0.25, "bias": -3.0}
    config["training_record"] |= {"refit": 1234, "step": 1800, "steps": 1800, "native": 0.5}
    config["metrics"] = {"validation": errors}
    card = card_of(config)
    assert "those of the same recipe's run without the validation images (its step 1234)" in card
    assert "step 1800, and were trained on the" in card
    assert "best of the run" not in card
    assert ", 50 % of them at their own size" in card
    assert "recompressed copies" not in card
    config["training_record"]["worse"] = 0.3
    assert "size, 30 % of recompressed copies, half of them softened;\n" in card_of(config)
    assert not ModelCard(card).data.eval_results
    config["metrics"]["test"] = {**errors, "mae": 77.5}
    (result, *_) = ModelCard(card_of(config)).data.eval_results
    assert (result.dataset_split, result.metric_value) == ("test", 77.5)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({}, "the best of the run by validation MAE."),
        ({"choose_by": "nae"}, "the best of the run by validation NAE."),
        ({"choose_by": "last", "step": 300, "steps": 300}, "those of the end, step 300."),
        (
            {"choose_by": "last", "step": 100, "steps": 300},
            "of step 100, at which the run was stop",
        ),
        ({"refit": 300, "step": 100, "steps": 300}, "of step 100, at which the run was stopped"),
    ],
)
def test_the_card_says_which_error_chose_the_weights(
    config: dict[str, Any], record: dict[str, str], told: str
) -> None:
    for entry in ("refit", "choose_by"):
        config["training_record"].pop(entry, None)
    config["training_record"] |= record
    assert told in card_of(config)


@pytest.mark.parametrize(
    ("step", "told"),
    [(300, "It took 2.0 h on a CPU."), (100, "It took 2.0 h to step 100 on a CPU.")],
)
def test_what_a_run_took_is_told_up_to_the_step_that_was_kept(
    config: dict[str, Any], step: int, told: str
) -> None:
    record = {"step": step, "steps": 300, "seconds": 7200, "device": "a CPU"}
    config["training_record"] |= record
    assert told in card_of(config)


def test_a_card_tells_whether_somebody_edited_it(config: dict[str, Any]) -> None:
    card = card_of(config)
    assert is_unedited(card)
    assert is_unedited(card.rstrip())
    assert str(ModelCard(card)) == card  # as save_pretrained writes it
    assert sealed(card) == card
    assert unsealed(card) + "\n" in card
    for edited in (
        card + "\nAsk Ada.\n",
        "Ask Ada.\n" + card,
        card.replace("Counts", "Finds"),
        unsealed(card),
    ):
        assert not is_unedited(edited)


def test_a_byte_order_mark_is_no_edit_and_hides_no_metadata(
    config: dict[str, Any], tmp_path: Path
) -> None:
    config["metrics"] = {"test": {"images": 182, "mae": 68.25}}
    card = tmp_path / "README.md"
    card.write_text(card_of(config), encoding="utf-8-sig")
    assert may_be_replaced(card)
    config["metrics"]["test"]["mae"] = 77.7
    assert has_other_figures(read_card(card), card_of(config))


def test_the_training_tells_recipe_held_out_and_left_out_pictures(config: dict[str, Any]) -> None:
    record = config["training_record"]
    card = card_of(config)
    for told in (record["name"], record["loss"], "a VGG", *record["exclude"]):
        assert told in card
    assert f"{record['steps']} steps" in card
    assert f"{record['validation']} of the training images" in card


def test_a_model_that_started_from_another_says_which_and_how_that_was_trained(
    config: dict[str, Any],
) -> None:
    record = config["training_record"]
    del record["frontend"]
    first = {"model": "org/first", "name": "First", "step": 90, "steps": 100, "loss": "L1"}
    second = {"model": "second", "name": "Second", "step": 5, "steps": 5, "loss": "L2"}
    record["init"] = {**second, "init": {**first, "frontend": "an old VGG"}}
    card = card_of(config)
    assert "Started from the weights of `second`: step 5 of 5" in card
    assert "That one started from the weights of `org/first`: step 90 of 100" in card
    assert "L1" in card
    assert "L2" in card
    assert "Its front end came from ImageNet's VGG-16 (an old VGG)" in card
    assert "He's normal initialisation" not in card


def test_a_start_of_which_nothing_is_known_is_told_so(config: dict[str, Any]) -> None:
    config["training_record"]["init"] = {"model": "stranger"}
    del config["training_record"]["frontend"]
    card = card_of(config)
    assert "`stranger`, of whose training nothing is recorded" in card
    assert "front end came from" not in card


@pytest.mark.parametrize(
    ("entry", "value"),
    [("exclude", 3), ("native", "half"), ("empty", "y"), ("optimiser", ["x"])],
)
def test_a_record_that_the_card_cannot_tell_is_left_out_with_a_warning(
    config: dict[str, Any], entry: str, value: Any
) -> None:
    config["training_record"][entry] = value
    with pytest.warns(UserWarning, match=r"leaves out training_record, which it cannot show \("):
        card = card_of(config)
    assert is_unedited(card)
    assert "107.0" in card  # the errors are there
    assert ModelCard(card).data.library_name == "csrnet-hub"


@pytest.mark.parametrize(
    ("entry", "value"), [("repeat", 5), ("scale", None), ("name", "caf\udce9"), ("init", {"a": {}})]
)
def test_what_a_record_holds_that_no_recipe_has_harms_no_card(
    config: dict[str, Any], entry: str, value: Any
) -> None:
    config["training_record"][entry] = value
    card = card_of(config)
    assert is_unedited(card)
    assert "11802 steps" in card


def test_a_figure_beyond_all_bounds_is_left_out_with_a_warning(config: dict[str, Any]) -> None:
    config["metrics"] = {"mine": {"images": 60, "mae": 10**400}}
    with pytest.warns(UserWarning, match="leaves out metrics"):
        card = card_of(config)
    assert "Not measured" in card
    assert "11802 steps" in card


def test_a_converted_model_names_its_checkpoint() -> None:
    card = card_of({"variant": "B", "training_record": {"converted_from": "PartA.pth.tar"}})
    assert "Converted from the checkpoint `PartA.pth.tar`" in card
    assert "Not measured." in card


def test_the_interval_is_explained_where_there_is_one(config: dict[str, Any]) -> None:
    config["interval"] = {"level": 0.9, "quantile": 2.0, "images": 60}
    assert "90 % of pictures like the 60" in card_of(config)
    assert "% of pictures like" not in card_of({**config, "interval": None})


@pytest.mark.parametrize(
    "config",
    [
        {"variant": "A"},
        {"variant": "A", "training_record": [], "metrics": "good"},
        {"variant": "A", "training_record": {"init": "x"}, "metrics": {"mae": 3}},
        {"variant": "A", "metrics": {"v": {"mae": float("nan"), "images": 3.0, "ranges": 7}}},
    ],
)
def test_odd_entries_leave_a_card_that_reads_and_has_no_unfilled_places(
    config: dict[str, Any],
) -> None:
    card = card_of(config)
    assert ModelCard(card).data.library_name == "csrnet-hub"
    assert PLACEHOLDER in card
    assert "{{ " not in card
    assert "{%" not in card


def test_the_card_has_code_limits_licences_and_a_citation(config: dict[str, Any]) -> None:
    card = card_of(config)
    for told in ("from_pretrained(", "few people", "blank", "animals", "drawings", "Apache-2.0"):
        assert told in card
    assert "judge that before commercial use" in card
    assert "no terms beyond those of what they were made from" in card
    assert "A checkpoint does not tell its mean" not in card
    assert "@inproceedings{li2018csrnet" in card


@pytest.mark.parametrize(
    "record",
    [
        {"converted_from": "PartA.pth.tar"},
        {"init": {"model": "a", "init": {"model": "b", "converted_from": "PartA.pth.tar"}}},
    ],
)
def test_of_weights_that_come_of_a_checkpoint_no_terms_are_promised(
    record: dict[str, Any],
) -> None:
    card = card_of({"variant": "B", "training_record": record})
    assert "the checkpoint `PartA.pth.tar`, whose terms are not recorded" in card
    assert "no terms beyond" not in card
    assert ("A checkpoint does not tell its mean and std" in card) is ("init" not in record)
