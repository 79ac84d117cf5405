"""The kit: its files are read by the formats' own parsers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.config import model_server_config_pb2

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.blessing import bless, file_digests
from lfm4ads_tf.export.publishing import roll_back
from lfm4ads_tf.export.serving.__main__ import main
from lfm4ads_tf.export.serving.kit import KitOptions, write_kit
from lfm4ads_tf.export.wire.model_target import ModelTarget
from lfm4ads_tf.export.wire.serving_error import ServingError


def add_version(exports: Path, model: str, version: int, size: int = 10) -> Path:
    folder = exports / model / str(version)
    folder.mkdir(parents=True)
    (folder / "saved_model.pb").write_bytes(b"x" * size)
    bless(folder, {"files": file_digests(folder)}, model=model)
    return folder


@pytest.fixture
def exports(tmp_path: Path) -> Path:
    folder = tmp_path / "exports"
    for model in ("foundation", "ranker_tab 1", "user_tower"):
        add_version(folder, model, 1)
    add_version(folder, "ranker_tab 1", 2)
    return folder


def config_of(kit: Path) -> dict[str, Any]:
    text = (kit / "models.config").read_text()
    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())
    return {c.name: c for c in config.model_config_list.config}


def message(name: str, fields: dict[str, tuple[str, int]]) -> Any:
    """A message class by the names and types of its published definition."""
    file = descriptor_pb2.FileDescriptorProto(
        name=f"kit_test/{name}.proto", package="kit_test", syntax="proto3"
    )
    file.dependency.append("google/protobuf/wrappers.proto")
    nested = file.message_type.add(name="PrometheusConfig")
    nested.field.add(name="enable", number=1, type=8, label=1)
    nested.field.add(name="path", number=2, type=9, label=1)
    outer = file.message_type.add(name=name)
    for number, (field, (kind, label)) in enumerate(fields.items(), 1):
        added = outer.field.add(name=field, number=number, label=label)
        scalars = {"int64": 3, "bool": 8}
        if kind in scalars:
            added.type = scalars[kind]
        else:
            added.type, added.type_name = 11, kind
    pool = descriptor_pool.DescriptorPool()
    pool.Add(descriptor_pb2.FileDescriptorProto.FromString(wrappers_pb2.DESCRIPTOR.serialized_pb))
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"kit_test.{name}"))


def test_all_blessed_models_are_served(exports: Path, tmp_path: Path) -> None:
    kit = tmp_path / "kit"
    write_kit(exports, kit)
    found = config_of(kit)
    assert set(found) == {"foundation", "ranker_tab 1", "user_tower"}
    for name, of in found.items():
        listed = list(of.model_version_policy.specific.versions)
        assert set(of.version_labels) == {"stable", "canary"}
        assert set(of.version_labels.values()) <= set(listed)
        assert all((exports / name / str(v) / "blessing.json").exists() for v in listed)
        assert of.base_path == f"/models/{name}"
    assert list(found["ranker_tab 1"].model_version_policy.specific.versions) == [1, 2]
    assert sorted(os.listdir(kit)) == [
        ".env",
        "README.md",
        "batching.config",
        "compose.yaml",
        "kubernetes.yaml",
        "models.config",
        "monitoring.config",
    ]


def test_what_is_not_blessed_is_left_out(
    exports: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (exports / "ranker_tab 1" / "2" / "saved_model.pb").write_bytes(b"changed")
    (exports / "user_tower" / "1" / "blessing.json").unlink()
    (exports / "foundation" / ".staging-2-1").mkdir()
    write_kit(exports, tmp_path / "kit")
    found = config_of(tmp_path / "kit")
    assert set(found) == {"foundation", "ranker_tab 1"}
    assert list(found["ranker_tab 1"].model_version_policy.specific.versions) == [1]
    assert "user_tower/1 is left out" in caplog.text
    assert "has changed since it was blessed" in caplog.text


def test_labels_of_an_earlier_kit_move_in_two_steps_and_back_after_a_rollback(
    exports: Path, tmp_path: Path
) -> None:
    kit = tmp_path / "kit"
    write_kit(exports, kit)
    inode = kit.stat().st_ino
    add_version(exports, "foundation", 2)
    assert write_kit(exports, kit)["foundation"].waiting == {"canary": 2}
    of = config_of(kit)["foundation"]
    assert list(of.model_version_policy.specific.versions) == [1, 2]
    assert dict(of.version_labels) == {"canary": 1, "stable": 1}
    write_kit(exports, kit, KitOptions(promote=["foundation"]))
    assert dict(config_of(kit)["foundation"].version_labels) == {"canary": 2, "stable": 2}
    roll_back(exports / "foundation")
    write_kit(exports, kit)
    of = config_of(kit)["foundation"]
    assert list(of.model_version_policy.specific.versions) == [1]
    assert dict(of.version_labels) == {"canary": 1, "stable": 1}
    assert kit.stat().st_ino == inode  # containers that have the folder mounted see the change


def test_a_label_whose_version_was_deleted_is_kept_and_a_warning_says_so(
    exports: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    kit = tmp_path / "kit"
    write_kit(exports, kit)
    for version in (2, 3, 4):
        add_version(exports, "foundation", version)
    write_kit(exports, kit)
    assert not caplog.text
    shutil.rmtree(exports / "foundation" / "1")
    write_kit(exports, kit)
    assert dict(config_of(kit)["foundation"].version_labels) == {"canary": 4, "stable": 3}
    assert "foundation: 'stable' pointed at version 1, which is gone" in caplog.text
    assert "It points at 3 now. Move it with --label foundation:stable=VERSION." in caplog.text
    caplog.clear()
    write_kit(exports, kit)
    assert not caplog.text
    assert dict(config_of(kit)["foundation"].version_labels) == {"canary": 4, "stable": 3}


def test_labels_move_when_the_server_says_that_it_has_loaded(
    exports: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    states = {"foundation": ["AVAILABLE"]}

    class Asked:
        def status(self, target: ModelTarget, deadline: Any) -> list[dict[str, Any]]:
            if target.name not in states:
                raise ServingError("NOT_FOUND", "no such model")
            found = states[target.name]
            return [{"version": n, "state": state} for n, state in enumerate(found, 1)]

        def close(self) -> None:
            pass

    monkeypatch.setattr("lfm4ads_tf.export.serving.kit.open_transport", lambda address: Asked())
    kit, asking = tmp_path / "kit", KitOptions(server="grpc://somewhere:1")
    write_kit(exports, kit, asking)
    add_version(exports, "foundation", 2)
    for loading in (["AVAILABLE"], ["AVAILABLE", "LOADING"], ["AVAILABLE", "END"]):
        states["foundation"] = loading
        for _ in range(2):
            assert write_kit(exports, kit, asking)["foundation"].waiting == {"canary": 2}
    states["foundation"] = ["AVAILABLE", "AVAILABLE"]
    assert write_kit(exports, kit, asking)["foundation"].labels == {"canary": 2, "stable": 1}


def test_batching_and_monitoring_are_known_parameters(exports: Path, tmp_path: Path) -> None:
    write_kit(exports, tmp_path)
    integer, flag = ".google.protobuf.Int64Value", ".google.protobuf.BoolValue"
    parameters = message(
        "BatchingParameters",
        {
            "max_batch_size": (integer, 1),
            "batch_timeout_micros": (integer, 1),
            "max_enqueued_batches": (integer, 1),
            "num_batch_threads": (integer, 1),
            "thread_pool_name": (".google.protobuf.StringValue", 1),
            "allowed_batch_sizes": ("int64", 3),
            "pad_variable_length_inputs": ("bool", 1),
            "enable_large_batch_splitting": (flag, 1),
            "max_execution_batch_size": (integer, 1),
        },
    )
    batching = text_format.Parse((tmp_path / "batching.config").read_text(), parameters())
    assert batching.enable_large_batch_splitting.value
    assert 0 < batching.max_execution_batch_size.value <= batching.max_batch_size.value
    assert not batching.pad_variable_length_inputs
    monitoring = message(
        "MonitoringConfig", {"prometheus_config": (".kit_test.PrometheusConfig", 1)}
    )
    held = text_format.Parse((tmp_path / "monitoring.config").read_text(), monitoring())
    assert held.prometheus_config.enable
    assert held.prometheus_config.path == "/monitoring/prometheus/metrics"


def test_compose_file(exports: Path, tmp_path: Path) -> None:
    write_kit(exports, tmp_path, KitOptions(base_path="/srv/models"))
    services = yaml.safe_load((tmp_path / "compose.yaml").read_text())["services"]
    assert set(services) == {"serving", "batching"}
    for service in services.values():
        assert service["image"] == "tensorflow/serving:2.21.0"
        assert all(volume["read_only"] for volume in service["volumes"])
        assert service["user"].split(":")[0] != "0"
        assert service["read_only"] and service["cap_drop"] == ["ALL"]
        assert service["healthcheck"]["test"][0] == "CMD"
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert "--allow_version_labels_for_unavailable_models=true" in service["command"]
        for option in service["command"]:
            name, _, path = option.partition("=/config/")
            assert not path or (tmp_path / path).exists(), name
    assert not any("batching" in option for option in services["serving"]["command"])
    assert "--enable_batching=true" in services["batching"]["command"]
    lines = (tmp_path / ".env").read_text().splitlines()
    held = dict(line.split("=", 1) for line in lines)
    assert held["EXPORTS"] == f"'{exports.resolve()}'"
    assert held["BASE_PATH"] == "/srv/models"
    assert held["HEALTH_MODEL"] == "foundation"
    assert held["MEMORY"] == "1280m"


def test_kubernetes_manifest(exports: Path, tmp_path: Path) -> None:
    write_kit(exports, tmp_path)
    text = (tmp_path / "kubernetes.yaml").read_text()
    assert "@" not in text
    documents = list(yaml.safe_load_all(text))
    kinds = [d["kind"] for d in documents]
    assert kinds.count("Deployment") == kinds.count("Service") == 2
    held = next(d for d in documents if d["kind"] == "ConfigMap")["data"]
    for name in ("models.config", "batching.config", "monitoring.config"):
        assert held[name] == (tmp_path / name).read_text()
    for deployment in (d for d in documents if d["kind"] == "Deployment"):
        spec = deployment["spec"]
        labels = spec["template"]["metadata"]["labels"]
        assert spec["selector"]["matchLabels"].items() <= labels.items()
        assert spec["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
        container = spec["template"]["spec"]["containers"][0]
        assert container["readinessProbe"]["httpGet"]["path"] == "/v1/models/foundation"
        assert container["securityContext"]["readOnlyRootFilesystem"]
        assert container["resources"]["limits"]["memory"] == "1280Mi"
        batching = "batching" in deployment["metadata"]["name"]
        assert ("--enable_batching=true" in container["args"]) == batching
        mounts = {m["name"]: m for m in container["volumeMounts"]}
        assert mounts["exports"]["readOnly"] and mounts["exports"]["mountPath"] == "/models"
        assert set(mounts) == {v["name"] for v in spec["template"]["spec"]["volumes"]}


def test_command(exports: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kit = str(tmp_path / "kit")
    assert main([str(exports), "--to", kit]) == 0
    assert "ranker_tab 1: versions 1, 2; canary 2, stable 2" in capsys.readouterr().out
    assert main([str(exports), "--to", kit, "--label", "ranker_tab 1:stable=1"]) == 0
    assert "canary 2, stable 1" in capsys.readouterr().out
    add_version(exports, "user_tower", 2)
    assert main([str(exports), "--to", kit]) == 0
    assert "canary moves to 2 when that is loaded" in capsys.readouterr().out
    assert main([str(exports), "--to", kit, "--keep-labels"]) == 0
    assert "user_tower: versions 1, 2; canary 1, stable 1" in capsys.readouterr().out
    assert main([str(exports), "--to", kit, "--policy", "latest"]) == 0
    assert not config_of(Path(kit))["user_tower"].version_labels
    for wrong, reason in (
        (["--promote", "ranker_tab 2"], "Did you mean 'ranker_tab 1'?"),
        (["--label", "user_tower:stable=7"], "cannot point at version 7"),
        (["--label", "stable=1"], "MODEL:LABEL=VERSION"),
        (["--base-path", "models"], "absolute path"),
        (["--keep", "0"], "At least one version"),
        (["--server", "http://127.0.0.1:9"], "UNAVAILABLE"),
    ):
        assert main([str(exports), "--to", kit, *wrong]) == 2
        assert reason in capsys.readouterr().err
    assert main([str(tmp_path / "nowhere"), "--to", kit]) == 2


def test_a_folder_without_blessed_versions_is_refused(tmp_path: Path) -> None:
    (tmp_path / "exports" / "foundation" / "1").mkdir(parents=True)
    with pytest.raises(UserError, match="No blessed version"):
        write_kit(tmp_path / "exports", tmp_path / "kit")
    assert not (tmp_path / "kit").exists()
