from __future__ import annotations

from pathlib import Path

import pytest

import lfm4ads_tf as lfm
from lfm4ads_tf.errors import UserError
from tests.front.conftest import Fitted


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
    with pytest.raises(UserError, match="not empty"):
        lfm.PeriodChain(log, folder=tmp_path)


def test_a_model_that_was_trained_before_is_told(
    log: lfm.EncodedLog, network: lfm.NetworkConfig, caplog: pytest.LogCaptureFixture
) -> None:
    model = compiled(log, network)
    model.fit(log.dataset("train", batch_size=128), verbose=0)
    chain = lfm.PeriodChain(log, batch_size=128)
    with caplog.at_level("WARNING", logger="lfm4ads_tf"):
        model.fit(chain.dataset(), callbacks=[chain], verbose=0)
    assert "may know later periods" in caplog.text
