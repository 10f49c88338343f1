"""What python -m train.push promises, with the real client against a Hub on the loopback."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import ANY

import pytest
import torch
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file, save_file

from csrnet_hub import CountResult, CrowdCounter, CSRNet, ModelError
from csrnet_hub.card import PLACEHOLDER, card_of, named, sealed, unsealed
from train import push
from train.push import PushError, read_files

from .fake_hub import FakeHub
from .hub_client import HubClient, Outcome
from .thin import narrow

SENT = ["README.md", "config.json", "model.safetensors"]


@pytest.fixture(scope="session")
def prototype(thin_model: CSRNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("half") / "half-model"
    half = copy.deepcopy(thin_model).half()
    half.metrics = {"validation": {"images": 60, "mae": 123.4, "rmse": 194.2, "nae": 0.2}}
    half.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(prototype: Path, tmp_path: Path) -> Path:
    """A model folder that a test may change."""
    return Path(shutil.copytree(prototype, tmp_path / "best"))


@pytest.fixture
def taken(hub: FakeHub, prototype: Path, request: pytest.FixtureRequest) -> str:
    """A repository with another model, as an earlier push left it."""
    config = {**json.loads((prototype / "config.json").read_text()), "density_scale": 7.0}
    name = f"org/taken-{abs(hash(request.node.name))}"
    card = named(card_of(config), name)
    hub.repos.pop(name, None)
    hub.publish(name, {"config.json": json.dumps(config).encode(), "README.md": card.encode()})
    return name


def one_line(outcome: Outcome) -> str:
    """The one clear line that a push that failed ends with."""
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert line.startswith("push: ")
    return line


def test_a_push_is_one_commit_of_three_files_and_loads_back_equal(
    hub: FakeHub, online: HubClient, folder: Path, tmp_path: Path
) -> None:
    (folder / "optimiser.pt").write_bytes(b"not for others")
    outcome = online.push(folder, "org/new")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"{hub.url}/org/new/commit/" in outcome.out
    repo = hub.repos["org/new"]
    assert len(repo.commits) == 2  # the Hub's own first one, and the push
    assert not repo.private
    published = repo.files()
    assert sorted(published) == [".gitattributes", *SENT]
    for name in ("config.json", "model.safetensors"):
        assert published[name] == (folder / name).read_bytes()
    assert online.load("org/new", cache_dir=tmp_path / "cache") == online.load(folder)


def test_the_published_card_can_be_copied_from_and_has_figures_for_the_hub(
    hub: FakeHub, online: HubClient, folder: Path
) -> None:
    assert online.push(folder, "org/carded").code == 0
    card = hub.repos["org/carded"].files()["README.md"].decode()
    assert 'CSRNet.from_pretrained("org/carded")' in card
    assert PLACEHOLDER not in card
    assert "model-index:" in card
    assert "value: 123.4" in card


def test_a_dry_run_shows_what_would_be_sent_and_sends_nothing(
    hub: FakeHub, online: HubClient, folder: Path
) -> None:
    hub.requests.clear()
    outcome = online.push(folder, "org/dry", "--dry-run", token="")
    assert outcome.code == 0
    assert all(name in outcome.out for name in ["org/dry", *SENT])
    assert hub.requests == []


def test_a_card_that_is_not_in_utf8_is_one_line(
    hub: FakeHub, online: HubClient, folder: Path
) -> None:
    card = folder / "README.md"
    card.write_bytes(card.read_bytes() + "Prüfung".encode("latin-1"))
    assert "README.md is not in UTF-8" in one_line(online.push(folder, "org/odd", "--dry-run"))


def test_a_private_push_makes_a_private_repository(
    hub: FakeHub, online: HubClient, folder: Path
) -> None:
    assert online.push(folder, "org/secret", "--private").code == 0
    assert hub.repos["org/secret"].private


def test_private_weights_never_land_in_a_public_repository(
    hub: FakeHub, online: HubClient, folder: Path, taken: str
) -> None:
    before = dict(hub.repos[taken].branches)
    assert "already exists and is public" in one_line(online.push(folder, taken, "--private"))
    assert hub.repos[taken].branches == before


def test_a_push_to_a_branch_leaves_main_alone(
    hub: FakeHub, online: HubClient, folder: Path, taken: str
) -> None:
    main = dict(hub.repos[taken].files())
    assert online.push(folder, taken, "--revision", "trial/1").code == 0
    assert hub.repos[taken].files() == main
    assert "model.safetensors" in hub.repos[taken].files("trial/1")


def test_a_push_to_a_pull_request_makes_no_branch(
    hub: FakeHub, online: HubClient, folder: Path, taken: str
) -> None:
    branches = hub.repos[taken].branches
    branches["refs/pr/1"] = branches["main"]
    assert online.push(folder, taken, "--revision", "refs/pr/1").code == 0
    assert branches["refs/pr/1"] != branches["main"]


def test_a_second_push_replaces_the_card_that_the_first_one_wrote(
    hub: FakeHub, online: HubClient, folder: Path, taken: str
) -> None:
    before = hub.repos[taken].files()["README.md"]
    assert online.push(folder, taken).code == 0
    assert hub.repos[taken].files()["README.md"] != before


def test_a_card_that_was_edited_on_the_hub_is_overwritten_only_when_asked(
    hub: FakeHub, online: HubClient, folder: Path, taken: str
) -> None:
    edited = hub.repos[taken].files()["README.md"] + b"\nAsk Ada before use.\n"
    hub.publish(taken, {"README.md": edited})
    outcome = online.push(folder, taken)
    assert outcome.code == 0
    assert f"The card of {taken} was edited" in outcome.err
    assert "--replace-card overwrites it" in outcome.err
    assert hub.repos[taken].files()["README.md"] == edited
    assert "model.safetensors" in hub.repos[taken].files()
    assert online.push(folder, taken, "--replace-card") == (0, ANY, "")
    assert hub.repos[taken].files()["README.md"] != edited


def test_somebody_elses_card_is_as_if_edited(
    hub: FakeHub, online: HubClient, folder: Path, taken: str
) -> None:
    hub.publish(taken, {"README.md": b"# Theirs\n", "config.json": b'{"hidden_size": 3}'})
    assert "written by other code, so it was kept" in online.push(folder, taken).err
    assert hub.repos[taken].files()["README.md"] == b"# Theirs\n"


def test_a_card_that_another_version_made_and_nobody_edited_is_replaced(
    hub: FakeHub, online: HubClient, folder: Path, taken: str
) -> None:
    older = unsealed(hub.repos[taken].files()["README.md"].decode()).replace("Counts", "Finds")
    hub.publish(taken, {"README.md": sealed(older).encode()})
    assert online.push(folder, taken) == (0, ANY, "")
    published = hub.repos[taken].files()["README.md"]
    assert b"Counts the people" in published


def test_a_card_that_is_there_already_is_no_question(
    hub: FakeHub, online: HubClient, folder: Path, taken: str
) -> None:
    card = folder / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "\nAsk Ada.\n", encoding="utf-8")
    for _ in range(2):
        assert online.push(folder, taken, "--replace-card").code == 0
        assert online.push(folder, taken) == (0, ANY, "")


def test_a_card_that_is_of_another_model_is_made_anew(
    hub: FakeHub, online: HubClient, folder: Path
) -> None:
    config = json.loads((folder / "config.json").read_text())
    config["metrics"] = {"validation": {"images": 60, "mae": 77.7}}
    (folder / "config.json").write_text(json.dumps(config))
    assert "123.4" in (folder / "README.md").read_text(encoding="utf-8")
    assert online.push(folder, "org/anew").code == 0
    card = hub.repos["org/anew"].files()["README.md"].decode()
    assert "77.7" in card
    assert "123.4" not in card


def test_a_card_that_was_edited_in_the_folder_is_published_as_it_is(
    hub: FakeHub, online: HubClient, folder: Path
) -> None:
    card = folder / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "\nÀ demander.\n", encoding="utf-8")
    assert online.push(folder, "org/edited").code == 0
    assert "À demander." in hub.repos["org/edited"].files()["README.md"].decode()


@pytest.mark.parametrize("edit", ["", "\nAsk Ada.\n"])
def test_a_byte_order_mark_is_no_edit_of_a_card_and_is_not_published(
    folder: Path, monkeypatch: pytest.MonkeyPatch, edit: str
) -> None:
    narrow(monkeypatch)
    card, plain = folder / "README.md", (folder / "README.md").read_text(encoding="utf-8") + edit
    card.write_text(plain, encoding="utf-8")
    sent = read_files(folder, "org/marked")
    card.write_text(plain, encoding="utf-8-sig")
    assert read_files(folder, "org/marked") == sent


def test_a_card_that_was_edited_and_has_an_older_models_figures_is_told(
    hub: FakeHub, online: HubClient, folder: Path
) -> None:
    card = folder / "README.md"
    card.write_text(card.read_text(encoding="utf-8") + "\nAsk Ada.\n", encoding="utf-8")
    assert online.push(folder, "org/stale", "--dry-run").err == ""
    config = json.loads((folder / "config.json").read_text())
    config["metrics"]["validation"]["mae"] = 77.7
    (folder / "config.json").write_text(json.dumps(config))
    outcome = online.push(folder, "org/stale", "--dry-run")
    assert outcome.code == 0
    assert "its error figures are not in config.json" in outcome.err


def test_what_was_checked_is_what_is_sent(
    folder: Path, monkeypatch: pytest.MonkeyPatch, thin_model: CSRNet
) -> None:
    narrow(monkeypatch)
    before = (folder / "model.safetensors").read_bytes()
    count = CrowdCounter.count

    def changed_meanwhile(self: CrowdCounter, *rest: Any) -> CountResult:
        (folder / "model.safetensors").write_bytes(b"of a run's next model")
        return count(self, *rest)

    monkeypatch.setattr(CrowdCounter, "count", changed_meanwhile)
    assert read_files(folder, "org/new")["model.safetensors"] == before
    shutil.rmtree(folder)
    thin_model.save_pretrained(folder)
    read = Path.read_bytes

    def swapped(path: Path) -> bytes:
        content = read(path)
        if path == folder / "config.json":
            path.write_bytes(content + b" ")
        return content

    monkeypatch.setattr(Path, "read_bytes", swapped)
    with pytest.raises(PushError, match="changed while it was read"):
        read_files(folder, "org/new")


@pytest.mark.parametrize(
    ("token", "said"),
    [
        ("", "There is no token for the Hub: log in"),
        ("hf_wrong", "refused the token"),
        ("hf_reader", "may not write to"),
    ],
)
def test_without_the_right_token_a_push_is_one_line_and_nothing_is_sent(
    hub: FakeHub, online: HubClient, folder: Path, taken: str, token: str, said: str
) -> None:
    before = dict(hub.repos[taken].branches)
    hub.requests.clear()
    line = one_line(online.push(folder, taken, token=token))
    assert said in line
    assert "hf auth login" in line
    assert hub.repos[taken].branches == before
    assert hub.sent("PUT") == []


@pytest.mark.parametrize("status", [400, 403, 429])
def test_what_the_hub_says_of_a_refusal_is_passed_on(
    hub: FakeHub, online: HubClient, folder: Path, taken: str, status: int
) -> None:
    hub.refusal = (status, "Storage limit reached: ask for more.")
    try:
        line = one_line(online.push(folder, taken))
    finally:
        hub.refusal = None
    assert taken in line
    assert "Storage limit reached: ask for more" in line
    assert "Root=1-abc" not in line


def test_all_that_is_wrong_with_a_cards_metadata_is_told(
    hub: FakeHub, online: HubClient, folder: Path
) -> None:
    (folder / "README.md").write_text("---\nlicense: mit\n---\nMine.\n", encoding="utf-8")
    line = one_line(online.push(folder, "org/untagged"))
    assert "Invalid metadata in README.md. - no tags - no licence" in line


def test_a_namespace_of_somebody_else_is_one_line(
    hub: FakeHub, online: HubClient, folder: Path
) -> None:
    assert "may not write to stranger/model" in one_line(online.push(folder, "stranger/model"))
    assert "stranger/model" not in hub.repos


def test_offline_a_push_is_one_line(hub: FakeHub, offline: HubClient, folder: Path) -> None:
    hub.requests.clear()
    assert "HF_HUB_OFFLINE is set" in one_line(offline.push(folder, "org/new"))
    assert hub.requests == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/models/"),
        ("HEAD", "/resolve/"),
        ("POST", "/preupload/"),
        ("POST", "/commit/"),
        ("PUT", "/large/"),
    ],
)
def test_cut_off_half_way_nothing_is_published_and_pushing_again_is_enough(
    hub: FakeHub, online: HubClient, folder: Path, taken: str, method: str, path: str
) -> None:
    before = dict(hub.repos[taken].branches)
    hub.large.clear()
    with hub.cutting(method, path):
        line = one_line(online.push(folder, taken))
    assert taken in line
    assert "push again" in line
    assert hub.repos[taken].branches == before
    if method == "PUT":
        assert online.push(folder, taken).code == 0
        assert "model.safetensors" in hub.repos[taken].files()


def test_cut_off_in_a_new_repository_leaves_it_empty(
    hub: FakeHub, online: HubClient, folder: Path
) -> None:
    hub.large.clear()
    with hub.cutting("PUT", "/large/"):
        one_line(online.push(folder, "org/empty"))
    assert list(hub.repos["org/empty"].files()) == [".gitattributes"]


def test_a_lost_answer_to_the_commit_is_not_told_as_nothing_published(
    hub: FakeHub, online: HubClient, folder: Path, taken: str
) -> None:
    with hub.cutting("POST", "/commit/", "after"):
        line = one_line(online.push(folder, taken))
    assert set(hub.repos[taken].files()) == set(SENT)
    assert "nothing is half published" in line
    assert online.push(folder, taken).code == 0


def test_a_commit_of_somebody_else_meanwhile_is_not_overwritten(
    hub: FakeHub, online: HubClient, folder: Path, taken: str
) -> None:
    hub.meanwhile = lambda: hub.publish(taken, {"README.md": b"mine"})
    assert "changed by somebody else" in one_line(online.push(folder, taken))
    assert hub.repos[taken].files()["README.md"] == b"mine"


@pytest.mark.parametrize(
    ("name", "said"),
    [("README.md", "README.md from the Hub differs"), ("config.json", "could not be downloaded")],
)
def test_what_comes_back_changed_is_told(
    hub: FakeHub, online: HubClient, folder: Path, name: str, said: str
) -> None:
    hub.repos.pop("org/garbled", None)
    hub.garbled = name
    try:
        line = one_line(online.push(folder, "org/garbled"))
    finally:
        hub.garbled = None
    assert said in line
    assert "org/garbled is published as commit" in line


def test_a_folder_of_the_repositorys_name_is_not_what_was_published(
    hub: FakeHub, online: HubClient, folder: Path, tmp_path: Path
) -> None:
    shutil.copytree(folder, tmp_path / "org" / "shadowed")
    online.work_in(tmp_path)
    hub.garbled = "config.json"
    try:
        line = one_line(online.push(folder, "org/shadowed"))
    finally:
        hub.garbled = None
        online.work_in(Path.cwd())
    assert "could not be downloaded again to check it: config.json" in line


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def damaged_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"no tensors")


def too_large_weights(folder: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        narrow(patch)
        model = CSRNet.from_pretrained(folder)
    with torch.no_grad():
        model.output_layer.weight.fill_(3e38)  # finite, but the sum of the products is not
    model.metrics = None
    shutil.rmtree(folder)
    model.save_pretrained(folder)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (shutil.rmtree, "There is no folder"),
        (without_weights, "has no model.safetensors"),
        (damaged_weights, "cannot be read"),
        (too_large_weights, "is not finite"),
    ],
)
def test_a_folder_that_does_not_count_is_not_sent(
    hub: FakeHub, online: HubClient, folder: Path, spoil, said: str
) -> None:  # type: ignore[no-untyped-def]
    spoil(folder)
    hub.requests.clear()
    assert said in one_line(online.push(folder, "org/never"))
    assert hub.requests == []


@pytest.mark.parametrize("name", ["model", "a/b/c", "org/..", "org/bad name"])
def test_a_name_that_is_no_repositorys_is_one_line(
    online: HubClient, folder: Path, name: str
) -> None:
    assert "give org/name" in one_line(online.push(folder, name))


def test_push_to_hub_publishes_the_model_with_a_card_that_names_the_repository(
    hub: FakeHub, online: HubClient, folder: Path
) -> None:
    online.push_to_hub(folder, "org/mixin")
    published = hub.repos["org/mixin"].files()
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert published["README.md"].decode() == named(card, "org/mixin")
    assert 'CSRNet.from_pretrained("org/mixin")' in published["README.md"].decode()
    assert json.loads(published["config.json"]) == json.loads((folder / "config.json").read_text())


def test_push_to_hub_makes_the_card_anew_unless_somebody_edited_it(
    hub: FakeHub, online: HubClient, folder: Path
) -> None:
    online.push_to_hub(folder, "org/again")
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for mae in (71.5, 62.5):
        config["metrics"] = {"mine": {"images": 60, "mae": mae}}
        (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
        assert online.push_to_hub(folder, "org/again") == []
        assert f"{mae}" in hub.repos["org/again"].files()["README.md"].decode()
    edited = hub.repos["org/again"].files()["README.md"] + b"\nAsk Ada.\n"
    hub.repos["org/again"].commit("main", {"README.md": edited})
    config["metrics"]["mine"]["mae"] = 60.5
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (said,) = online.push_to_hub(folder, "org/again")
    assert "The card of org/again was edited" in said
    assert "train.push ... --replace-card overwrites it" in said
    published = hub.repos["org/again"].files()
    assert published["README.md"] == edited
    assert json.loads(published["config.json"])["metrics"]["mine"]["mae"] == 60.5


def test_push_to_hub_puts_private_weights_in_no_public_repository(
    hub: FakeHub, online: HubClient, folder: Path, taken: str
) -> None:
    before = dict(hub.repos[taken].branches)
    with pytest.raises(ModelError, match="already exists and is public"):
        online.push_to_hub(folder, taken, private=True)
    assert hub.repos[taken].branches == before
    online.push_to_hub(folder, "org/hidden", private=True)
    assert online.push_to_hub(folder, "org/hidden", private=True) == []
    assert hub.repos["org/hidden"].private


def test_push_to_hub_writes_over_nothing_that_is_committed_meanwhile(
    hub: FakeHub, online: HubClient, folder: Path
) -> None:
    online.push_to_hub(folder, "org/raced")
    hub.meanwhile = lambda: hub.publish("org/raced", {"README.md": b"Ask Ada."})
    weights = load_file(folder / "model.safetensors")  # other weights, which are uploaded
    save_file({key: 2 * value for key, value in weights.items()}, folder / "model.safetensors")
    with pytest.raises(HfHubHTTPError):
        online.push_to_hub(folder, "org/raced")
    assert hub.repos["org/raced"].files()["README.md"] == b"Ask Ada."


def test_options_of_a_push_are_for_a_push(thin_model: CSRNet, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="private, branch can only be given with push_to_hub=True"):
        thin_model.save_pretrained(tmp_path / "a", private=True, branch="next")
    assert not (tmp_path / "a").exists()


def test_saving_with_a_push_hands_on_its_options(
    thin_model: CSRNet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def commit(repo: str, operations: list[Any], **options: Any) -> SimpleNamespace:
        asked.update(options, files={one.path_in_repo for one in operations})
        return SimpleNamespace(oid="1", commit_url=f"{repo}/commit/1")

    def api(**options: Any) -> SimpleNamespace:
        asked.update(options)
        return SimpleNamespace(
            create_repo=lambda name, **_: SimpleNamespace(repo_id=f"org/{name}"),
            model_info=lambda *_, **__: SimpleNamespace(sha="0"),
            create_commit=commit,
        )

    monkeypatch.setattr("csrnet_hub.pretrained.HfApi", api)
    monkeypatch.setattr("csrnet_hub.publish.on_hub", lambda *_: None)
    options: dict[str, Any] = {"token": "hf_a", "commit_message": "Better", "create_pr": True}
    address = thin_model.save_pretrained(tmp_path / "mine", push_to_hub=True, **options)
    assert address == "org/mine/commit/1"
    assert options.items() <= asked.items()
    assert asked["files"] == {path.name for path in (tmp_path / "mine").iterdir()}


def test_push_to_hub_makes_the_branch(hub: FakeHub, online: HubClient, folder: Path) -> None:
    online.push_to_hub(folder, "org/branched")
    before = hub.repos["org/branched"].files()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    config["min_side"] = 256
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    online.push_to_hub(folder, "org/branched", branch="next")
    assert hub.repos["org/branched"].files() == before
    assert json.loads(hub.repos["org/branched"].files("next")["config.json"])["min_side"] == 256


def test_a_push_that_is_stopped_says_so_apart_from_what_it_sends(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(push, "read_files", stopped)
    assert push.main([str(folder), "org/name"]) == 130
    out, err = capsys.readouterr()
    assert out == ""
    assert "push: stopped; a push is one commit" in err
