"""An export that is loaded in this process and asked with raw rows."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from lfm4ads_tf.data.requests import complete, read_requests
from lfm4ads_tf.errors import UserError
from lfm4ads_tf.export.contract import CONTRACT_FILE
from lfm4ads_tf.export.request_schema import RequestSchema
from lfm4ads_tf.export.skew.in_process_model import InProcessModel
from lfm4ads_tf.features import raw_values
from lfm4ads_tf.features.raw_types import RawType
from lfm4ads_tf.front.encoded_log import EncodedLog
from lfm4ads_tf.front.tables import write_table

_BATCH = 512


class LoadedExport:
    """A version folder of an upstream or a downstream model; `load_export` makes it.

    Args:
        folder: The version folder.
        log: The encoded log that it was made with.

    Raises:
        UserError: It cannot be loaded, is of other data, or asks for representations.
    """

    def __init__(self, folder: Path, log: EncodedLog) -> None:
        path = folder / CONTRACT_FILE
        if not path.exists():
            raise UserError(
                "The folder holds no export of this library.",
                received=str(folder),
                fix="give a version folder, such as export_model returns",
            )
        contract = json.loads(path.read_text("utf-8"))
        if contract["encoding"] != log.encoder.digest:
            raise UserError(
                "The export was made with another encoding than the log's.",
                received=f"{folder} and {log.folder}",
                fix="give the log that it was exported with",
            )
        if contract["representations"]:
            raise UserError(
                "The export asks for stored representations in each request.",
                received=", ".join(contract["representations"]),
                fix="export it with export_model, or with export.representations=lookup",
            )
        types = log.encoder.raw_types
        self._schema = RequestSchema(
            {c: types.get(c) or RawType(kind) for c, kind in contract["columns"].items()}, {}
        )
        self._log = log
        self._tasks: list[str] = contract["tasks"]
        self._model = InProcessModel(folder)

    def predict(self, rows: Any) -> dict[str, np.ndarray]:
        """Scores raw rows.

        Args:
            rows: A `pyarrow.Table`, a data frame or a mapping of columns, N rows with the keys and
                the columns of the log; labels and times are not needed.

        Returns:
            Task -> (N,) float32, in the model's order of tasks; of a tower `representation`
            (N, d).

        Raises:
            UserError: A column is missing or has the wrong type.
        """
        spec, data = self._log.spec, self._log.folder
        with tempfile.TemporaryDirectory(prefix="lfm4ads_tf_") as folder:
            path = Path(folder) / "rows.parquet"
            count = write_table(rows, path, "The rows")
            columns = complete(spec, data, self._log.encoder, read_requests(spec, data, path))
        if not count:
            raise UserError("There is no row to score.", fix="give at least one")
        answers = []
        for start in range(0, count, _BATCH):
            part = slice(start, min(start + _BATCH, count))
            asked = {c: raw_values.slice_rows(columns[c], part) for c in self._schema.columns}
            answers.append(self._model.run("serving_default", self._schema.examples(asked, {})))
        # A signature's outputs are a protobuf map, whose order is not that of the tasks.
        named = [*self._tasks, *sorted(set(answers[0]) - set(self._tasks))]
        return {name: np.concatenate([a[name] for a in answers]) for name in named}
