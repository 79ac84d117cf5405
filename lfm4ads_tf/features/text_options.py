"""How the cells of a text file are written."""

from __future__ import annotations

from typing import Literal

from pydantic import model_validator

from lfm4ads_tf.strict import StrictModel


class TextOptions(StrictModel):
    r"""Quotes, escapes and line breaks in the cells of a CSV file.

    Attributes:
        quoting: `standard`: a cell that begins with `"` ends with the next single `"`, and `""`
            inside it is a quote. `none`: a quote is a character like any other.
        escape: `backslash`: inside a quoted cell `\"` is a quote and `\\` a backslash, as Spark
            writes them; any other backslash, there or in a cell without quotes, is itself.
        newlines_in_cells: Whether a quoted cell may go on in the next line.
    """

    quoting: Literal["standard", "none"] = "standard"
    escape: Literal["none", "backslash"] = "none"
    newlines_in_cells: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> TextOptions:
        if self.quoting == "none" and (self.escape != "none" or self.newlines_in_cells):
            raise ValueError(
                "`escape` and `newlines_in_cells` are for quoted cells: leave them out, or "
                "`quoting: none`"
            )
        return self
