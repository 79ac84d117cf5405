"""Labels and versions, against the rule by which TensorFlow Serving accepts a configuration."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_serving.config import model_server_config_pb2

from export.serving.model_config import ServedModel, plan, read, render
from lfm4ads_tf.errors import UserError


class Server:
    """What `ServerCore::ReloadConfig` does: labels first, then versions.

    A label in use cannot move to a version that is not loaded; a label that is not in use can
    point anywhere (--allow_version_labels_for_unavailable_models).
    """

    def __init__(self) -> None:
        self.labels: dict[str, int] = {}
        self.loaded: set[int] = set()

    def reload(self, model: ServedModel, on_disk: set[int]) -> None:
        for label, version in model.labels.items():
            moved = self.labels.get(label, version) != version
            assert not moved or version in self.loaded, f"'{label}' cannot move to {version}"
        self.labels = dict(model.labels)
        self.poll(model, on_disk)

    def poll(self, model: ServedModel, on_disk: set[int]) -> None:
        self.loaded = set(model.versions) & on_disk


STEPS = st.lists(
    st.sampled_from(["publish", "roll back", "restore", "promote", "write", "keep labels"]),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, keep=st.integers(1, 3))
def test_no_sequence_of_changes_is_refused_by_the_server(steps: list[str], keep: int) -> None:
    disk, gone, next_version = {1}, set(), 2
    server = Server()
    model = plan([1], None, keep=keep)
    server.reload(model, disk)
    for step in steps:
        wanted = None
        if step == "publish":
            disk.add(next_version)
            next_version += 1
            continue
        if step == "roll back":
            if len(disk) > 1:
                gone.add(max(disk))
                disk.remove(max(disk))
                server.poll(model, disk)
            continue
        if step == "restore":
            if gone:
                disk.add(gone.pop())
                server.poll(model, disk)
            continue
        if step == "promote":
            wanted = {"stable": max(disk)}
        model = plan(sorted(disk), model, keep=keep, wanted=wanted, move=step != "keep labels")
        server.reload(model, disk)
        assert set(model.labels.values()) <= server.loaded
        assert set(model.versions) <= disk
        assert set(sorted(disk)[-keep:]) <= set(model.versions)
    for _ in range(2):
        model = plan(sorted(disk), model, keep=keep)
        server.reload(model, disk)
    assert not model.waiting
    assert server.labels["canary"] == max(disk)
    assert server.labels["stable"] in server.loaded


def test_canary_follows_after_its_version_is_loaded_and_stable_after_its_promotion() -> None:
    first = plan([1], None)
    assert (first.versions, first.labels) == ([1], {"canary": 1, "stable": 1})
    loading = plan([1, 2], first)
    assert (loading.versions, loading.labels) == ([1, 2], {"canary": 1, "stable": 1})
    assert loading.waiting == {"canary": 2}
    moved = plan([1, 2], loading)
    assert (moved.labels, moved.waiting) == ({"canary": 2, "stable": 1}, {})
    assert plan([1, 2], moved, wanted={"stable": 2}).labels == {"canary": 2, "stable": 2}
    kept = plan([1, 2, 3], moved, keep=1, move=False)
    assert (kept.versions, kept.labels) == ([1, 2, 3], {"canary": 2, "stable": 1})


def test_configuration_is_the_servers_own_text_proto(tmp_path) -> None:
    models = {
        "ranker_tab 1": ServedModel([3, 4], {"canary": 4, "stable": 3}),
        "foundation": ServedModel([1], {"canary": 1, "stable": 1}),
    }
    text = render(models, "/models")
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    first = config.model_config_list.config[0]
    assert (first.name, first.base_path, first.model_platform) == (
        "ranker_tab 1",
        "/models/ranker_tab 1",
        "tensorflow",
    )
    assert list(first.model_version_policy.specific.versions) == [3, 4]
    assert dict(first.version_labels) == {"canary": 4, "stable": 3}
    path = tmp_path / "models.config"
    path.write_text(text)
    assert read(path) == models

    latest = text_format.Parse(
        render(models, "/models", 2), model_server_config_pb2.ModelServerConfig()
    )
    for one in latest.model_config_list.config:
        assert one.model_version_policy.latest.num_versions == 2
        assert not one.version_labels


def test_another_file_is_not_taken_for_a_configuration(tmp_path) -> None:
    path = tmp_path / "models.config"
    assert read(path) == {}
    path.write_text("models: [1]")
    with pytest.raises(UserError, match="no model configuration"):
        read(path)
