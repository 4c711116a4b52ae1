"""Results as tables: pandas DataFrames, or lists of records where pandas is not installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any


def frame(records: Iterable[Mapping[str, Any]]) -> Any:
    """Return records as a DataFrame, or as a list of dicts if pandas is not installed. Missing values: None or NaN."""
    rows = [dict(record) for record in records]
    try:
        import pandas
    except ImportError:
        return rows
    return pandas.DataFrame(rows)


def summary_records(rows: Iterable[Any]) -> list[dict[str, Any]]:
    """Return one record per row of a comparison: means, and the limits of their 95% intervals over seeds."""
    return [_flat(row.as_dict()) for row in rows]


def run_records(summaries: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one record per run: its outcome, with `before.accuracy` etc. from its first and last evaluation."""
    return [_flat(summary) for summary in summaries]


def verdict_records(judgement: Any) -> list[dict[str, Any]]:
    """Return one record per pair: the verdict on `a` compared with `b` (None with a `refusal`), and a - b."""
    return [
        {
            "measure": judgement.measure,
            "a": pair["a"],
            "b": pair["b"],
            "verdict": pair["verdict"],
            **_flat({key: value for key, value in pair.items() if key not in ("a", "b", "verdict")}),
        }
        for pair in judgement.as_dict()["pairs"]
    ]


def _flat(table: Mapping[str, Any]) -> dict[str, Any]:
    """Return a flat table: `outer.inner` for nested tables; an interval `x` becomes x, x.low and x.high."""
    made: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping) and {"mean", "low", "high"} <= value.keys():
            made |= {key: value["mean"], f"{key}.low": value["low"], f"{key}.high": value["high"]}
        elif isinstance(value, Mapping):
            made |= {f"{key}.{inner}": item for inner, item in _flat(value).items()}
        else:
            made[key] = value
    return made
