"""What from_pretrained promises by the name of a Hub repository, with the real client."""

from __future__ import annotations

import copy
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from csrnet_hub import CrowdCounter, CSRNet, ModelError
from csrnet_hub.hub import explain
from csrnet_hub.model_files import with_revision

from .fake_hub import FakeHub
from .hub_client import HubClient

NAMES = ("config.json", "model.safetensors")


@pytest.fixture(scope="session")
def half_folder(thin_model: CSRNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A thin model in half precision: quick to send."""
    folder = tmp_path_factory.mktemp("half") / "half-model"
    copy.deepcopy(thin_model).half().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def files(half_folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in half_folder.iterdir()}


@pytest.fixture(scope="session")
def published(hub: FakeHub, files: dict[str, bytes]) -> str:
    """A public repository with the model."""
    hub.publish("org/public", files)
    return "org/public"


def scaled(files: dict[str, bytes], scale: float) -> dict[str, bytes]:
    """The same weights with another density scale: another model, told by its config.json."""
    config = {**json.loads(files["config.json"]), "density_scale": scale}
    return {**files, "config.json": json.dumps(config).encode()}


def test_a_folder_and_the_repository_made_from_it_are_the_same_model(
    online: HubClient, published: str, half_folder: Path
) -> None:
    here = online.load(half_folder)
    assert here.count != 0
    assert online.load(published) == here


def test_the_page_serves_the_folder_and_the_repository_alike(
    online: HubClient, published: str, half_folder: Path
) -> None:
    pytest.importorskip("gradio", minversion="6")
    count = online.load(half_folder).count
    assert online.load_in_app(published) == online.load_in_app(half_folder) == count


def test_a_second_load_downloads_nothing(hub: FakeHub, online: HubClient, published: str) -> None:
    first = online.load(published)
    hub.requests.clear()
    assert online.load(published) == first
    assert hub.sent("GET", "POST", "PUT") == []


def test_offline_a_model_in_the_cache_loads_without_a_request(
    hub: FakeHub, online: HubClient, offline: HubClient, published: str
) -> None:
    first = online.load(published)
    hub.requests.clear()
    assert offline.load(published) == first
    assert hub.requests == []


def test_with_local_files_only_what_is_not_in_the_cache_is_told_as_that(
    online: HubClient, published: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"cache_dir": tmp_path, "local_files_only": True}
    with pytest.raises(ModelError, match=r"config\.json is not in the Hub cache\. local_files"):
        online.load(published, **options)
    there = online.load(published, cache_dir=tmp_path)
    assert online.load(published, **options) == there


def test_a_cache_that_cannot_be_written_is_told_as_that(
    online: HubClient, published: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(ModelError, match=r"cannot be saved to the Hub cache .* cache_dir"):
        online.load(published, cache_dir=tmp_path / "file")


def test_offline_a_model_that_is_not_in_the_cache_is_a_sentence(offline: HubClient) -> None:
    with pytest.raises(ModelError, match=r"org/never .* in the Hub cache, .* or give a folder"):
        offline.load("org/never")


def test_a_name_without_an_owner_is_a_sentence_and_the_hub_is_not_asked(
    hub: FakeHub, online: HubClient
) -> None:
    hub.requests.clear()
    with pytest.raises(ModelError, match=r"no model folder my-modell\. A model on the Hub is org/"):
        online.load("my-modell")
    assert hub.requests == []


def test_a_hub_that_does_not_answer_is_a_sentence(
    hub: FakeHub, online: HubClient, published: str, tmp_path: Path
) -> None:
    with hub.cutting("HEAD", "/"):
        with pytest.raises(ModelError, match=f"{published}.*(connection|try again later)") as told:
            online.load(published, cache_dir=tmp_path)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("proxy", ["socks5://127.0.0.1:9", "socks://127.0.0.1:9"])
def test_a_proxy_that_cannot_be_used_is_told_with_both_ways_out(
    monkeypatch: pytest.MonkeyPatch, proxy: str
) -> None:
    monkeypatch.setitem(sys.modules, "socksio", None)  # as if it were not installed
    with pytest.raises((ImportError, ValueError)) as raised:
        httpx.Client(proxy=proxy)
    told = explain(raised.value, "org/name", "config.json", None)
    assert re.search(r"^org/name .* ALL_PROXY .* unset .* `pip install \"httpx\[socks]\"`\.$", told)
    assert "later" not in told


def test_a_revision_stays_what_it_was(
    hub: FakeHub, online: HubClient, files: dict[str, bytes]
) -> None:
    old = hub.publish("org/moving", scaled(files, 2.0))
    assert online.load("org/moving").config["density_scale"] == 2.0
    hub.publish("org/moving", scaled(files, 3.0))
    assert online.load("org/moving").config["density_scale"] == 3.0
    assert online.load("org/moving", revision=old).config["density_scale"] == 2.0
    assert online.load(f"org/moving@{old}").config["density_scale"] == 2.0
    assert online.load(f"org/moving@{old}", revision=old).config["density_scale"] == 2.0
    with pytest.raises(ModelError, match="and revision 'main' differ: give only one of the two"):
        online.load(f"org/moving@{old}", revision="main")


def test_a_folder_may_have_an_at_sign_in_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = Path("mine/crowds@night")
    folder.mkdir(parents=True)
    for source in (folder, str(folder), f"./{folder}", str(folder.resolve())):
        assert with_revision(source, None) == (source, None)
        with pytest.raises(ModelError, match=r"crowds@night has no config\.json"):
            CSRNet.from_pretrained(source)
    for missing in ("./mine/none@v1", Path("mine/none@v1"), "mine@v1", "mine/none@"):
        with pytest.raises(ModelError, match=re.escape(Path(missing).name)):
            CSRNet.from_pretrained(missing)
    (folder.parent / "org").mkdir()
    with pytest.raises(ModelError, match="mine/org is a local folder, and local folders have"):
        CSRNet.from_pretrained("mine/org@v1")
    with pytest.raises(ModelError, match="mine/org is a local folder, and local folders have"):
        CSRNet.from_pretrained("mine/org", revision="v1")
    with pytest.raises(ModelError, match=r"mine/org has no config\.json"):  # a folder, and no other
        CSRNet.from_pretrained("./mine/org", revision="v1")


def test_a_counter_is_called_by_the_revision_too(
    thin_model: CSRNet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CSRNet, "from_pretrained", lambda *_, **__: thin_model)
    for source, options in (("org/name@v1", {}), ("org/name", {"revision": "v1"})):
        assert CrowdCounter.from_pretrained(source, device="cpu", **options).name == "org/name@v1"


def test_a_revision_that_is_not_there_is_a_sentence(online: HubClient, published: str) -> None:
    with pytest.raises(ModelError, match=f"{published} has no revision 'v9': give an existing"):
        online.load(published, revision="v9")
    with pytest.raises(ModelError, match=f"{published} has no revision 'refs/pr/1': give an"):
        online.load(f"{published}@refs/pr/1")


def test_weights_are_those_of_the_commit_that_the_configuration_came_from(
    hub: FakeHub, online: HubClient, files: dict[str, bytes]
) -> None:
    commit = hub.publish("org/pinned", files)
    hub.requests.clear()
    online.load("org/pinned")
    asked = [path for path in hub.sent("HEAD", "GET") if path.endswith("model.safetensors")]
    assert asked
    assert all(f"/resolve/{commit}/" in path for path in asked)


def test_a_private_repository_opens_to_a_token_and_tells_others_to_log_in(
    hub: FakeHub, online: HubClient, files: dict[str, bytes]
) -> None:
    hub.publish("org/private", files, private=True)
    with pytest.raises(ModelError, match=r"org/private .* private, log in with `hf auth login`"):
        online.load("org/private")
    assert online.load("org/private", token="hf_reader").count != 0


def test_a_gated_repository_tells_where_to_ask(
    hub: FakeHub, online: HubClient, files: dict[str, bytes]
) -> None:
    hub.publish("org/gated", files, gated=True)
    with pytest.raises(ModelError, match="org/gated is gated: ask for access on its page"):
        online.load("org/gated")


def test_a_token_that_is_not_valid_is_a_sentence(
    online: HubClient, published: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=rf"refused the token for {published}, .*log in"):
        online.load(published, token="hf_wrong", cache_dir=tmp_path)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("token", ["", "hf_reader"])
def test_what_is_neither_a_folder_nor_a_repository_is_a_sentence(
    online: HubClient, token: str, force: bool
) -> None:
    with pytest.raises(ModelError, match=r"^org/nowhere is not a local folder, .* check the name"):
        online.load("org/nowhere", token=token, force_download=force)


def test_a_forced_download_that_fails_tells_why(
    hub: FakeHub, online: HubClient, published: str
) -> None:
    with hub.cutting("HEAD", "/"):
        with pytest.raises(ModelError, match=f"{published} could not be fetched") as told:
            online.load(published, force_download=True)
    assert "above error" not in str(told.value)


@pytest.mark.parametrize("name", NAMES)
def test_a_repository_without_a_file_names_both_and_the_remedy(
    hub: FakeHub, online: HubClient, files: dict[str, bytes], name: str
) -> None:
    repo = f"org/without-{name}"
    hub.publish(repo, {key: data for key, data in files.items() if key != name})
    with pytest.raises(ModelError, match=rf"{repo} has no {name}, .*train\.push"):
        online.load(repo)


def test_pickles_are_not_loaded_and_the_way_out_is_told(
    hub: FakeHub, online: HubClient, files: dict[str, bytes]
) -> None:
    hub.publish("org/pickles", {"config.json": files["config.json"], "pytorch_model.bin": b"\x80"})
    hub.requests.clear()
    with pytest.raises(ModelError, match=r"org/pickles has no model\.safetensors.*csrnet convert"):
        online.load("org/pickles")
    assert not [path for path in hub.sent("GET", "HEAD") if path.endswith(".bin")]


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_was_published_damaged_names_the_repository_and_the_file(
    hub: FakeHub, online: HubClient, files: dict[str, bytes], name: str
) -> None:
    repo = f"org/damaged-{name}"
    hub.publish(repo, {**files, name: files[name][: len(files[name]) // 2]})
    trouble = rf"{repo} holds no usable CSRNet: {name} .*its owner has to publish it again"
    with pytest.raises(ModelError, match=trouble):
        online.load(repo)


def test_a_repository_of_a_newer_version_is_told_as_that(
    hub: FakeHub, online: HubClient, files: dict[str, bytes]
) -> None:
    config = {**json.loads(files["config.json"]), "colour": 1}
    hub.publish("org/newer", {**files, "config.json": json.dumps(config).encode()})
    with pytest.raises(ModelError, match=r"org/newer .* update csrnet-hub\.$"):
        online.load("org/newer")


def test_a_file_that_was_damaged_in_the_cache_is_mended_as_the_message_says(
    hub: FakeHub, online: HubClient, published: str, tmp_path: Path
) -> None:
    good = online.load(published, cache_dir=tmp_path)
    (weights,) = tmp_path.glob("models--*/snapshots/*/model.safetensors")
    weights.resolve().write_bytes(weights.read_bytes()[:-5])
    (folder,) = tmp_path.glob("models--*")
    with pytest.raises(ModelError, match=rf"safetensors .* Delete {re.escape(str(folder))} and"):
        online.load(published, cache_dir=tmp_path)
    shutil.rmtree(folder)
    assert online.load(published, cache_dir=tmp_path) == good


def test_a_download_that_was_cut_off_is_a_sentence_and_the_next_one_is_whole(
    hub: FakeHub, online: HubClient, published: str, half_folder: Path, tmp_path: Path
) -> None:
    with hub.cutting("GET", "/large/", "middle"):
        with pytest.raises(ModelError, match=rf"{published} could not be fetched .* try again"):
            online.load(published, cache_dir=tmp_path)
    assert online.load(published, cache_dir=tmp_path) == online.load(half_folder)
