"""The report of a merge, as a dict that notebooks show as a table."""

from __future__ import annotations

from html import escape
from typing import Any


class Report(dict):
    """What a merge did: `output`, `tasks`, `base` and `report`, as `skillweld merge --json` has them; of `retain` likewise."""

    def _repr_html_(self) -> str:
        masks = self["report"].get("masks")
        head = f"<b>{escape(str(self['output']))}</b>"
        tensors = ", ".join(f"{count} {escape(group)}" for group, count in self["report"]["tensors"].items())
        if not masks:
            return f"<div>{head}<br>{tensors}</div>"
        rescalers = masks.get("rescalers") or {}
        rows = "".join(_row(task, kept, rescalers.get(task)) for task, kept in masks["kept"].items())
        heading = "<tr><th>task</th><th>kept</th>" + ("<th>rescaler</th>" if rescalers else "") + "</tr>"
        selfish = f"{masks['selfish_ratio']:.1%} kept by exactly one task, {masks['kept_by_none']:.1%} by none"
        return f"<div>{head}<br>{tensors}<table>{heading}{rows}</table>{selfish}</div>"


def _row(task: str, kept: float, rescaler: Any) -> str:
    more = "" if rescaler is None else f"<td>{rescaler:.3f}</td>"
    return f"<tr><td>{escape(task)}</td><td>{kept:.1%}</td>{more}</tr>"
