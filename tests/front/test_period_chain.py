from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import lfm4ads_tf as lfm
from lfm4ads_tf.errors import UserError
from tests.front.conftest import Files, Fitted


def compiled(log: lfm.EncodedLog, network: lfm.NetworkConfig, **options: int) -> lfm.MMoE:
    model = lfm.MMoE(log.layout, network, lfm.EmbeddingsConfig(dim=4))
    model.compile(lfm.HybridOptimizer(), **options)
    return model


def test_a_snapshot_is_kept_before_each_period(log: lfm.EncodedLog, fitted: Fitted) -> None:
    periods = sorted(set(log.cache.period[log.rows("train")].tolist()))
    # the auxiliary rows give the first one; the last one is for held-out rows
    assert fitted.chain.snapshots == [*periods, periods[-1] + 1]


def test_a_chain_is_walked_once(log: lfm.EncodedLog, network: lfm.NetworkConfig) -> None:
    model = compiled(log, network)
    chain = lfm.PeriodChain(log, batch_size=64)
    with pytest.raises(UserError, match="one epoch"):
        model.fit(chain.dataset(), callbacks=[chain], epochs=2, verbose=0)
    with pytest.raises(UserError, match="walked before"):
        model.fit(chain.dataset(), callbacks=[chain], verbose=0)


def test_ends_of_periods_cannot_be_passed_over(
    log: lfm.EncodedLog, network: lfm.NetworkConfig
) -> None:
    model = compiled(log, network, steps_per_execution=7)
    chain = lfm.PeriodChain(log, batch_size=32)
    with pytest.raises(UserError, match="passed over the end of a period"):
        model.fit(chain.dataset(), callbacks=[chain], verbose=0)


def test_a_chain_that_was_not_walked_has_no_snapshots(
    log: lfm.EncodedLog, network: lfm.NetworkConfig
) -> None:
    model = compiled(log, network)
    chain = lfm.PeriodChain(log, batch_size=64)
    model.fit(chain.dataset(), verbose=0)  # without the callback
    with pytest.raises(UserError, match=r"callbacks=\[chain\]"):
        lfm.extract(model, log, chain)


def test_a_folder_of_others_is_refused(log: lfm.EncodedLog, tmp_path: Path) -> None:
    (tmp_path / "mine").touch()
    with pytest.raises(UserError, match="something else than this chain"):
        lfm.PeriodChain(log, folder=tmp_path)


def test_a_model_that_was_trained_before_is_refused(
    log: lfm.EncodedLog, network: lfm.NetworkConfig, tmp_path: Path
) -> None:
    model = compiled(log, network)
    model.fit(log.dataset("train", batch_size=128), verbose=0)
    model.compile(lfm.HybridOptimizer())  # forgets no training
    model.save(tmp_path / "model.keras")
    from tf_keras.models import load_model

    for each in (model, load_model(tmp_path / "model.keras")):
        chain = lfm.PeriodChain(log, batch_size=128)
        with pytest.raises(UserError, match="trained before"):
            each.fit(chain.dataset(), callbacks=[chain], verbose=0)


def test_the_chain_goes_with_its_own_batches_alone(
    log: lfm.EncodedLog, network: lfm.NetworkConfig
) -> None:
    model, chain, other = compiled(log, network), lfm.PeriodChain(log), lfm.PeriodChain(log)
    for data in (log.dataset("train"), other.dataset(), chain.dataset().take(3)):
        with pytest.raises(UserError, match="its own batches"):
            model.fit(data, callbacks=[chain], verbose=0)
    assert not model.fitted


def test_rates_are_the_users_again_behind_the_chain(
    log: lfm.EncodedLog, network: lfm.NetworkConfig
) -> None:
    model = compiled(log, network)
    model.optimizer.table_learning_rate.assign(0.25)
    chain = lfm.PeriodChain(log, batch_size=256, final_passes=2, final_decay=0.5)
    model.fit(chain.dataset(), callbacks=[chain], verbose=0)
    assert float(model.optimizer.table_learning_rate) == 0.25


@pytest.mark.slow
def test_a_chain_is_opened_again(
    log: lfm.EncodedLog, network: lfm.NetworkConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "chain"
    model, chain = compiled(log, network), lfm.PeriodChain(log, batch_size=128, folder=folder)
    model.fit(chain.dataset(), callbacks=[chain], verbose=0)
    again = lfm.PeriodChain(log, batch_size=128, folder=folder)
    assert again.complete and again.snapshots == chain.snapshots
    fresh = compiled(log, network)  # of the same arguments, at its initial weights
    fresh.evaluate(log.dataset("valid"), verbose=0)
    before = [v.numpy() for v in fresh.weights]
    one, other = lfm.extract(model, log, chain), lfm.extract(fresh, log, again)
    for name in one.dims:
        np.testing.assert_array_equal(one.frozen(name)[1], other.frozen(name)[1])
    assert all(np.array_equal(v.numpy(), w) for v, w in zip(fresh.weights, before, strict=True))
    with pytest.raises(UserError, match="something else than this chain"):
        lfm.PeriodChain(log, batch_size=64, folder=folder)


@pytest.mark.slow
def test_extraction_wants_the_chains_model_and_log(
    files: Files, log: lfm.EncodedLog, network: lfm.NetworkConfig
) -> None:
    model, chain = compiled(log, network), lfm.PeriodChain(log, batch_size=128)
    model.fit(chain.dataset(), callbacks=[chain], verbose=0)
    other = lfm.FoundationModel(log.layout, network, lfm.EmbeddingsConfig(dim=4))
    with pytest.raises(UserError, match="not the one that was fitted"):
        lfm.extract(other, log, chain)
    split = files.spec.split.model_copy(update={"train_until": 5.0})
    shorter = lfm.encode(files.spec.model_copy(update={"split": split}), files.folder)
    with pytest.raises(UserError, match="other data than the log's"):
        lfm.extract(model, shorter, chain)
    stored = lfm.extract(model, log, chain)
    with pytest.raises(UserError, match="stored for other data"):
        shorter.dataset("train", representations=stored)
    model.fit(log.dataset("train"), verbose=0)
    with pytest.raises(UserError, match="trained after the chain"):
        lfm.extract(model, log, chain)
