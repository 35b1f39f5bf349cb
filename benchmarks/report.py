"""From samples to tables for people and JSON for programs."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from rich import box
from rich.markup import escape
from rich.table import Table

from benchmarks.drive import Sample, Settings
from benchmarks.peers.registry import PEERS
from benchmarks.workloads.base import CLIENT_PEAK, Metric, Workload

SCHEMA = 1


class Spread(NamedTuple):
    """What is said about one metric of one peer over all repeats."""

    median: float
    least: float
    most: float
    ratio: float | None
    """Median against the base peer's median; None without a base, or where the base failed."""


class Row(NamedTuple):
    """One peer in one workload."""

    peer: str
    amount: int
    repeats: int
    spreads: dict[str, Spread]
    errors: tuple[str, ...]
    left_running: int


def rows(workload: Workload, samples: Sequence[Sample]) -> list[Row]:
    """Sum up the samples of one workload, in the order of the peer registry."""
    mine = [sample for sample in samples if sample.order.workload == workload.name]
    by_peer = {name: [sample for sample in mine if sample.order.peer == name] for name in PEERS}
    base = by_peer.get(workload.base_peer or "", [])
    return [row(workload, name, of_peer, base) for name, of_peer in by_peer.items() if of_peer]


def row(workload: Workload, peer: str, samples: Sequence[Sample], base: Sequence[Sample]) -> Row:
    """Sum up the samples of one peer in one workload."""
    good = [sample for sample in samples if sample.error is None]
    return Row(
        peer=peer,
        amount=good[0].amount if good else 0,
        repeats=len(good),
        spreads={metric.key: spread(metric, good, base) for metric in metrics_of(workload)} if good else {},
        errors=tuple(sample.error for sample in samples if sample.error is not None),
        left_running=max(sample.left_running for sample in samples),
    )


def spread(metric: Metric, good: Sequence[Sample], base: Sequence[Sample]) -> Spread:
    """Median, range and ratio of one metric. Medians, because one bad moment must not move the answer."""
    values = [sample.values[metric.key] for sample in good]
    base_values = [sample.values[metric.key] for sample in base if sample.error is None]
    median = statistics.median(values)
    ratio = median / statistics.median(base_values) if base_values and metric.compared else None
    return Spread(median, min(values), max(values), ratio)


def table(workload: Workload, samples: Sequence[Sample], settings: Settings) -> Table:
    """One workload as a table, a section for each metric; below it, what a reader has to know to read it.

    Metrics stand below each other, so that a table fits into 80 columns and peers are compared down a column.
    """
    summed = rows(workload, samples)
    drawn = Table(
        title=f"{workload.name}: {workload.title}",
        caption=escape("\n".join(notes(workload, summed, settings))),
        title_justify="left",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    drawn.add_column("metric", no_wrap=True)
    drawn.add_column("peer", no_wrap=True)
    for heading in (workload.unit, "median", "min–max", "ratio")[: 4 if workload.base_peer else 3]:
        drawn.add_column(heading, justify="right", no_wrap=True)
    for metric in metrics_of(workload):
        if metric.shown:
            for label, found in zip([metric.label, *[""] * len(summed)], summed, strict=False):
                drawn.add_row(label, *cells(metric, found)[: len(drawn.columns) - 1])
            drawn.add_section()
    return drawn


def cells(metric: Metric, found: Row) -> list[str]:
    """One row of the table; dashes for a peer of which no measurement succeeded."""
    numbers = found.spreads.get(metric.key)
    if numbers is None:
        return [found.peer, "failed", "–", "–", "–"]
    form = f",.{metric.decimals}f"
    return [
        found.peer,
        f"{found.amount:,}",
        f"{numbers.median:{form}}",
        f"{numbers.least:{form}}–{numbers.most:{form}}",
        "–" if numbers.ratio is None else ratio_text(numbers.ratio),
    ]


def metrics_of(workload: Workload) -> tuple[Metric, ...]:
    """Its own, and the client's memory, which it has in common with all."""
    return (*workload.metrics, CLIENT_PEAK)


def ratio_text(ratio: float) -> str:
    """Two decimals, or two digits where two decimals would say nothing."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"


def notes(workload: Workload, summed: Sequence[Row], settings: Settings) -> list[str]:
    """Which way is better, who got fewer tasks, who failed, who left processes behind."""
    ways = [
        f"{metric.label}: {'more' if metric.higher_is_better else 'less'} is better"
        for metric in workload.metrics
        if metric.shown and metric.compared
    ]
    found = [f"{medians_of(summed)}, {settings.workers} workers." + (f" {'; '.join(ways)}." if ways else "")]
    if workload.base_peer is not None:
        found.append(f"Ratios are against {workload.base_peer}.")
    if workload.remark is not None:
        found.append(workload.remark(settings.workers, settings.scale))
    fewer = [summary.peer for summary in summed if PEERS[summary.peer].slow and summary.spreads]
    if workload.slow_amount is not None and fewer:
        found.append(f"{', '.join(fewer)}: fewer {workload.unit}, for they are slow; compare rates, not memory.")
    if settings.scale != 1:
        found.append(f"A quick try at scale {settings.scale:g}: these numbers are not to be quoted.")
    found += [f"{summary.peer} failed: {summary.errors[0]}" for summary in summed if summary.errors]
    found += [
        f"{summary.peer} left {summary.left_running} processes running after its stop; they were killed."
        for summary in summed
        if summary.left_running
    ]
    return found


def medians_of(summed: Sequence[Row]) -> str:
    """Of how many repeats the medians are, where a run was interrupted or a peer failed too."""
    repeats = sorted({summary.repeats for summary in summed if summary.repeats})
    if not repeats:
        return "No measurement succeeded"
    return f"Medians of {repeats[0]}" + (f" to {repeats[-1]}" if len(repeats) > 1 else "")


def document(
    workloads: Sequence[Workload],
    samples: Sequence[Sample],
    settings: Settings,
    machine: dict[str, object],
) -> dict[str, object]:
    """Everything, for programs: what the tables show, and every sample, so that others can sum up anew."""
    return {
        "schema": SCHEMA,
        "machine": machine,
        "settings": settings._asdict(),
        "workloads": {
            workload.name: {
                "title": workload.title,
                "base_peer": workload.base_peer,
                "metrics": [metric._asdict() for metric in metrics_of(workload)],
                "summary": [summary(found) for found in rows(workload, samples)],
            }
            for workload in workloads
        },
        "samples": [sample_record(number, sample) for number, sample in enumerate(samples)],
    }


def summary(found: Row) -> dict[str, object]:
    """A row with its spreads as plain dictionaries."""
    return found._asdict() | {"spreads": {key: spread._asdict() for key, spread in found.spreads.items()}}


def sample_record(number: int, sample: Sample) -> dict[str, object]:
    """One sample, its place in the run as `order`; without the log, which names folders of this machine."""
    record = sample.order._asdict() | sample._asdict() | {"order": number}
    del record["log"]
    return record
