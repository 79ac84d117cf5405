"""The terminal's view of the warnings of `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.markup import escape

from lfm4ads_tf.pipeline.diagnosis import KINDS

_SHOWN = 4
_TOLD = ("point_in_time", "untimed")
"""Kinds that the tables tell by themselves."""


def print_warnings(document: Mapping[str, Any], console: Console) -> None:
    """Prints the warnings by kind, the first few of each."""
    warnings = [w for w in document.get("warnings", []) if w["kind"] not in _TOLD]
    if not warnings:
        return
    console.print(f"\n[bold yellow]Warnings[/bold yellow] ({len(warnings)}, in metrics.json)")
    for kind, title in KINDS.items():
        of_kind = [w for w in warnings if w["kind"] == kind]
        for warning in of_kind[:_SHOWN]:
            text = place(warning) + warning["message"]
            console.print(f"[yellow]{title}[/yellow]: {escape(text)}")
        if of_kind[_SHOWN:]:
            more = f"and {len(of_kind) - _SHOWN} more, all in metrics.json and the report"
            console.print(f"[yellow]{title}[/yellow]: {more}")


def place(warning: Mapping[str, Any]) -> str:
    """Scenario and task of a warning, as the start of a line; empty where it is of neither."""
    scenario = warning["scenario"]
    named = ["all scenarios" if scenario == "all" else scenario, warning["task"]]
    text = ", ".join(str(name) for name in named if name is not None)
    return f"{text}: " if text else ""
