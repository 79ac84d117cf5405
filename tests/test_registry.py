"""Names and the classes that they stand for."""

from __future__ import annotations

import json

import pytest

from lfm4ads_tf.errors import UserError
from lfm4ads_tf.registry import Registry


def make() -> Registry[object]:
    return Registry(
        "codec", {"decoder": "json.decoder:JSONDecoder", "encoder": "json.encoder:JSONEncoder"}
    )


def test_an_entry_is_imported_when_it_is_asked_for() -> None:
    assert make()["decoder"] is json.JSONDecoder
    assert list(make()) == ["decoder", "encoder"]


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    with pytest.raises(UserError, match=r"codec 'decodr' is unknown. Did you mean 'decoder'\?"):
        make()["decodr"]


def test_a_registered_class_is_an_entry_like_any_other() -> None:
    registry = make()

    @registry.register("own")
    class Own:
        pass

    assert registry["own"] is Own and "own" in registry


def test_a_name_belongs_to_one_entry_but_may_be_registered_again_by_the_same() -> None:
    registry = make()
    registry.register("decoder")(json.JSONDecoder)
    with pytest.raises(UserError, match="registered twice"):
        registry.register("decoder")(json.JSONEncoder)


def test_an_added_entry_is_gone_after_the_context() -> None:
    registry = make()
    with registry.added("own", 1):
        assert registry["own"] == 1
    assert "own" not in registry
