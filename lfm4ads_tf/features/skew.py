"""How far the distributions of logged rows may drift from those of training: `skew` of the spec."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lfm4ads_tf.features.kinds import SequenceFeature, StatisticFeature
from lfm4ads_tf.strict import StrictModel

Share = Annotated[float, Field(ge=0, le=1)]


class FeatureLimits(StrictModel):
    """Limits of one feature; what is absent is the general one."""

    linf: Share | None = None
    missing: Share | None = None
    oov: Share | None = None


class SkewConfig(StrictModel):
    """What `check-skew` calls drift; each limit is a share in [0, 1], and 1 is never exceeded.

    Attributes:
        linf: Largest change of the share of any one value. At 0.1 a decile of a number may empty
            or double, and no id may gain or lose more than a tenth of the rows.
        missing: Largest change of the missing rate, up or down: an input that broke is missing
            more often, one that is filled in less. 0.05 is one row in twenty.
        oov: Largest rise of the out-of-vocabulary rate: rows whose value has no embedding of its
            own. A fall is none, because training rows see a value as unseen until it is admitted.
        features: Feature -> limits of its own. A feature that moves with the log (a statistic, a
            sequence of events) is held to limits only when it is named here: its distribution
            changes as events accumulate.
    """

    linf: Share = 0.1
    missing: Share = 0.05
    oov: Share = 0.05
    features: dict[str, FeatureLimits] = {}

    def limits(self, name: str, feature: object) -> SkewLimits | None:
        """The limits that a feature is held to, None for none.

        Args:
            name: The feature.
            feature: Its declaration.
        """
        named = self.features.get(name)
        if named is None and is_moving(feature):
            return None
        named = named or FeatureLimits()
        return SkewLimits(
            linf=self.linf if named.linf is None else named.linf,
            missing=self.missing if named.missing is None else named.missing,
            oov=self.oov if named.oov is None else named.oov,
        )


class SkewLimits(StrictModel):
    """The limits of one feature, all of them known."""

    linf: Share
    missing: Share
    oov: Share


def is_moving(feature: object) -> bool:
    """Whether a feature is made from past events, so that its distribution moves by itself."""
    if isinstance(feature, SequenceFeature):
        return feature.events_of is not None
    return isinstance(feature, StatisticFeature)
