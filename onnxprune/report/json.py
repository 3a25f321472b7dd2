"""Reports as JSON documents, in the shapes that the schemas describe."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from onnxprune.bench.values import BenchReport
from onnxprune.report.inspected import GroupInfo, Inspection
from onnxprune.report.ranked import Ranking
from onnxprune.report.values import Report, VerifyReport

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["FORMATS", "to_json"]

FORMATS: dict[type, str] = {
    Report: "onnxprune-report/1",
    Inspection: "onnxprune-inspect/1",
    BenchReport: "onnxprune-bench/1",
    Ranking: "onnxprune-sensitivity/1",
    VerifyReport: "onnxprune-verify/1",
}


def to_json(
    report: Report | Inspection | Ranking | BenchReport | VerifyReport,
) -> dict[str, object]:
    """Return a report as plain dicts, lists, strings and numbers, ``format`` first.

    Numbers that JSON cannot hold (NaN, infinities) become None.
    """
    document = {"format": FORMATS[type(report)], **_fields(report)}
    if isinstance(report, Inspection):
        document["groups"] = [{**_fields(g), "members": _members(g)} for g in report.groups]
        document["frozen"] = [
            {**_fields(f), "source": dict(zip(("value", "axis"), f.source, strict=True))}
            for f in report.frozen
        ]
    return document


def _members(group: GroupInfo) -> list[dict[str, object]]:
    names = ("value", "axis", "positions")
    return [dict(zip(names, member, strict=True)) for member in group.members]


def _fields(value: "DataclassInstance") -> dict[str, object]:
    return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}


def _plain(value: object) -> object:
    """Turn dataclasses, tuples, paths and numpy numbers into what JSON has."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str | int | None):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return _fields(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence):
        return [_plain(item) for item in value]
    return str(value)
