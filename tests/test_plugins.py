"""Files that register a user's own classes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from lfm4ads_tf.config import RunConfig
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.losses.masked_bce import masked_bce
from lfm4ads_tf.losses.registry import LOSSES
from lfm4ads_tf.plugins import load_plugins
from lfm4ads_tf.strict import parse
from tests.plug_ins import plug_ins_forgotten, registries
from tests.rounding import assert_close

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "plug_in.py"


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    """Forgets the plug-ins of a test and what they registered."""
    with plug_ins_forgotten():
        yield


def test_a_forgotten_plug_in_leaves_nothing() -> None:
    before = [dict(registry) for registry in registries()]
    assert len(before) > 5
    with plug_ins_forgotten():
        load_plugins([str(EXAMPLE)])
        added = [
            {*registry} - {*known} for registry, known in zip(registries(), before, strict=True)
        ]
        assert sum(map(bool, added)) >= 4 and {"matcher"} in added  # of each kind of class
        assert "lfm4ads_tf_plugin_plug_in" in sys.modules
    assert [dict(registry) for registry in registries()] == before
    assert "lfm4ads_tf_plugin_plug_in" not in sys.modules


def plug_in(folder: Path, text: str, name: str = "own_losses.py") -> str:
    (folder / name).write_text(text, "utf-8")
    return str(folder / name)


def test_a_configuration_knows_the_names_of_its_plug_ins(tmp_path: Path) -> None:
    name = plug_in(
        tmp_path,
        "from lfm4ads_tf.losses.registry import LOSSES\n"
        "@LOSSES.register('twice')\n"
        "def twice(labels, logits, task_weights, row_weights=None):\n"
        "    return 2 * LOSSES['bce'](labels, logits, task_weights, row_weights)\n",
    )
    raw = {"upstream": {"training": {"loss": "twice"}}}
    with pytest.raises(UserError, match="upstream.training.loss"):
        parse(RunConfig, raw, source="run")
    config = parse(RunConfig, {**raw, "plugins": [name]}, source="run")
    assert config.upstream.training.loss == "twice"
    # read again, as a resumed run does: the same file in the same process
    again = parse(RunConfig, config.model_dump(mode="json"), source="run")
    assert again == config


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import nothing_of_this_name\n", r"ModuleNotFoundError: .*\(line 1\)"),
        ("a = 1\nb = a +\n", "SyntaxError"),
        ("a = 1\nraise ValueError('not today')\n", r"ValueError: not today \(line 2\)"),
    ],
)
def test_a_file_that_cannot_be_imported_is_one_message(
    tmp_path: Path, text: str, message: str
) -> None:
    name = plug_in(tmp_path, text, "own_broken.py")
    for _ in range(2):  # nothing of it is left in the process
        with pytest.raises(UserError, match=message):
            load_plugins([name])


def test_what_is_no_file_or_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is not there"):
        load_plugins([str(tmp_path / "none.py")])
    with pytest.raises(UserError, match="'no_such_module' cannot be imported"):
        load_plugins(["no_such_module"])


def test_every_plug_in_that_is_named_is_imported() -> None:
    """A name that YAML takes for a number too; it would be accepted and mean nothing."""
    with pytest.raises(UserError, match="The plug-in '3' cannot be imported"):
        parse(RunConfig, {"plugins": [3]}, source="run")


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    first = plug_in(tmp_path, "a = 1\n", "own_twin.py")
    second = plug_in(tmp_path / "other", "a = 2\n", "own_twin.py")
    load_plugins([first])
    with pytest.raises(UserError, match="Two plug-ins are called 'own_twin.py'"):
        load_plugins([second])


def test_the_loss_of_the_example_is_its_formula() -> None:
    load_plugins([str(EXAMPLE)])
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, (7, 2)).astype(np.float32)
    labels[2, 1] = np.nan
    logits, rows = rng.normal(size=(7, 2)), rng.random(7)
    lambdas = np.array([1.0, 0.5])
    p = np.where(labels == 1, 1 / (1 + np.exp(-logits)), 1 / (1 + np.exp(logits)))
    terms = np.where(np.isnan(labels), 0.0, (1 - p) ** 1.5 * -np.log(p)) * rows[:, None]
    arguments = [tf.constant(x, tf.float32) for x in (labels, logits, lambdas, rows)]
    loss = LOSSES["focal"](*arguments, gamma=1.5)
    assert_close(loss, (terms.mean(axis=0) * lambdas).sum(), terms=14 + 8)
    plain = LOSSES["focal"](*arguments, gamma=0.0)
    assert_close(plain, masked_bce(*arguments), terms=14 + 8)
