"""Labels and versions, against the rule by which TensorFlow Serving accepts a configuration."""

from __future__ import annotations

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorflow_serving.config import model_server_config_pb2

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.serving.model_config import ServedModel, plan, read_model_config, render


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
    st.sampled_from(
        ["publish", "publish and delete", "roll back", "restore", "promote", "demote", "write"]
        + ["keep labels"]
    ),
    max_size=25,
)


class Disk:
    """The version folders of a model, changed as `lfm4ads_tf.export.publishing` does."""

    def __init__(self) -> None:
        self.served, self.rolled_back, self.next = {1}, set[int](), 2

    def publish(self, keep: int | None = None) -> None:
        self.served.add(self.next)
        self.next += 1
        if keep is not None:
            oldest = sorted(self.served)[-keep:][0]
            self.served = {v for v in self.served if v >= oldest}
            self.rolled_back = {v for v in self.rolled_back if v >= oldest}

    def roll_back(self) -> None:
        if len(self.served) > 1:
            self.rolled_back.add(max(self.served))
            self.served.remove(max(self.served))

    def restore(self) -> None:
        if self.rolled_back:
            self.served.add(self.rolled_back.pop())


@settings(max_examples=500, deadline=None)
@given(steps=STEPS, keep=st.integers(1, 3), kept_on_disk=st.integers(1, 4))
def test_no_sequence_of_changes_is_refused_or_moves_stable_up_by_itself(
    steps: list[str], keep: int, kept_on_disk: int
) -> None:
    disk, server = Disk(), Server()
    model = plan([1], None, keep=keep)
    server.reload(model, disk.served)
    chosen = [1]  # what `stable` was at, by the user's will; the last one is the present one
    for step in steps:
        wanted = None
        if step.startswith("publish"):
            disk.publish(kept_on_disk if step == "publish and delete" else None)
        elif step == "roll back":
            disk.roll_back()
        elif step == "restore":
            disk.restore()
        elif step in ("promote", "demote"):
            wanted = {"stable": max(disk.served) if step == "promote" else min(disk.served)}
        if wanted is None and step not in ("write", "keep labels"):
            server.poll(model, disk.served)
            continue
        for _ in range(2):  # the second time moves what waits
            was = model.labels["stable"]
            found = sorted(disk.served)
            model = plan(found, model, keep=keep, wanted=wanted, move=step != "keep labels")
            server.reload(model, disk.served)
            assert set(model.versions) <= disk.served
            assert set(found[-keep:]) <= set(model.versions)
            assert set(model.labels) == {"canary", "stable"}
            for label, version in model.labels.items():
                # Only a label whose version is gone may wait with no version loaded.
                assert version in server.loaded or (
                    version not in disk.served and model.waiting[label] in server.loaded
                )
            stable = model.labels["stable"]
            if wanted is not None and stable == wanted["stable"]:
                chosen = [v for v in chosen if v < stable] + [stable]
            elif stable != was:
                assert was not in disk.served
                older = [v for v in found if v < was]
                assert stable < was or (not older and (stable != found[-1] or len(found) == 1))
                known = [v for v in chosen if v in older]
                assert stable in known or not known
                chosen = [v for v in chosen if v < stable] + [stable]
        assert not model.waiting
        assert server.labels["stable"] in server.loaded
    for _ in range(2):
        model = plan(sorted(disk.served), model, keep=keep)
        server.reload(model, disk.served)
    assert not model.waiting
    assert server.labels["canary"] == max(disk.served)
    assert server.labels["stable"] in server.loaded


def test_stable_goes_back_when_publishing_deleted_its_version() -> None:
    deleted = plan([2, 3, 4], ServedModel([1, 2, 3], {"stable": 1, "canary": 3}))
    assert deleted.labels == {"canary": 3, "stable": 2}
    assert (deleted.waiting, deleted.gone) == ({"canary": 4}, {"stable": 1})
    assert plan([2, 3, 4], deleted).labels == {"canary": 4, "stable": 2}
    # Only the newest is loaded: nobody promoted it, so the label waits for the older one.
    waits = plan([2, 3], ServedModel([1, 3], {"stable": 1, "canary": 3}), keep=1)
    assert (waits.versions, waits.labels) == ([2, 3], {"canary": 3, "stable": 1})
    assert waits.waiting == {"stable": 2}
    assert plan([2, 3], waits, keep=1).labels == {"canary": 3, "stable": 2}
    assert plan([3], waits, keep=1).labels == {"canary": 3, "stable": 3}  # there is no other


def test_stable_goes_back_to_the_newest_version_that_was_promoted() -> None:
    versions, model = [1], plan([1], None, keep=9)
    for version in (2, 3, 4, 5):
        versions.append(version)
        for _ in range(2):
            wanted = {"stable": version} if version in (3, 5) else None
            model = plan(versions, model, keep=9, wanted=wanted)
    assert (model.labels["stable"], model.promoted) == (5, [1, 3, 5])
    assert plan([1, 2, 3, 4], model, keep=9).labels["stable"] == 3
    assert plan([2, 4], model, keep=9).labels["stable"] == 2
    # The user moved it down: what was promoted above does not count any more.
    down = plan(versions, model, keep=9, wanted={"stable": 3})
    assert plan([1, 2, 4, 5], down, keep=9).labels["stable"] == 1
    assert plan([2, 4, 5], down, keep=9).labels["stable"] == 2


def test_a_configuration_without_labels_gets_the_oldest_loaded_version_for_stable() -> None:
    assert plan([2, 3, 4], ServedModel([3, 4], {"canary": 4})).labels["stable"] == 3


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
        "ranker_tab 1": ServedModel([3, 4], {"canary": 4, "stable": 3}, promoted=[1, 3]),
        "foundation": ServedModel([1], {"canary": 1, "stable": 1}, promoted=[1]),
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
    assert read_model_config(path) == models
    damaged = text.replace('{"ranker_tab 1": [1, 3]}', '{"ranker_tab 1": 1').replace("[1]}", "1}")
    path.write_text(damaged)
    assert read_model_config(path)["ranker_tab 1"] == ServedModel(
        [3, 4], {"canary": 4, "stable": 3}
    )
    assert read_model_config(path)["foundation"] == ServedModel([1], {"canary": 1, "stable": 1})

    latest = text_format.Parse(
        render(models, "/models", 2), model_server_config_pb2.ModelServerConfig()
    )
    for one in latest.model_config_list.config:
        assert one.model_version_policy.latest.num_versions == 2
        assert not one.version_labels


def test_another_file_is_not_taken_for_a_configuration(tmp_path) -> None:
    path = tmp_path / "models.config"
    assert read_model_config(path) == {}
    path.write_text("models: [1]")
    with pytest.raises(UserError, match="no model configuration"):
        read_model_config(path)
