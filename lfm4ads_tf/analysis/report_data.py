"""Everything the report shows, as plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lfm4ads_tf.analysis.calibration_line import CalibrationLine
from lfm4ads_tf.analysis.training_curve import TrainingCurve


@dataclass(frozen=True)
class ReportData:
    """What `report_page` renders.

    Attributes:
        document: The content of `metrics.json`.
        made: When the results were written, as text.
        versions: Name of a package -> its version.
        seeds: The seeds of the run.
        methods: The configured transfer methods in order.
        scenarios: One entry per scenario: `name`, `train`, `valid`, `test` (rows) and `rates`
            (task -> mean label of the training and of the test rows, None where undefined).
        spans: Split -> first and last event time as text; empty when times are no dates.
        periods: Names of the training, valid and test periods in order.
        features: Owner -> number of embedded features and of dense columns.
        thresholds: Slice -> most training rows of an item or user of the slice.
        curves: One entry per trained model.
        calibrations: Lines of the calibration figures.
        tables: The upstream's embedding tables: `name`, `rows`, `dim`.
        abundance: Per seed, information abundance of these tables, see `abundance_table`.
        tokens: Per seed, what is told of the upstream's tokens, see `token_section`.
        parameters: Part of the upstream -> number of its parameters.
        artefacts: Relative path, what it is, bytes.
        config: The resolved configuration as YAML.
        command: The command that makes this run again.
        kinds: Kind of a warning -> its heading.
    """

    document: Mapping[str, Any]
    made: str
    versions: Mapping[str, str]
    seeds: Sequence[int]
    methods: Sequence[str]
    scenarios: Sequence[Mapping[str, Any]]
    config: str
    command: str
    spans: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    periods: Sequence[str] = ()
    features: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    thresholds: Mapping[str, int] = field(default_factory=dict)
    curves: Sequence[TrainingCurve] = ()
    calibrations: Sequence[CalibrationLine] = ()
    tables: Sequence[Mapping[str, Any]] = ()
    abundance: Sequence[Sequence[Mapping[str, Any]]] = ()
    tokens: Sequence[Sequence[Mapping[str, Any]]] = ()
    parameters: Mapping[str, int] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    artefacts: Sequence[tuple[str, str, int]] = ()
