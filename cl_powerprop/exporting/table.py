"""The table of an exported network against the dense one, and what it does not show."""

from rich.table import Table

from cl_powerprop.exporting.export import Exported, Measured

WIDTH = 120  # of the table where there is no terminal


def lines(exported: Exported) -> list[str]:
    """Return what is to be said below the table."""
    checked, cost = exported.checked, exported.small.cost
    zeros = 1.0 - cost.nonzero / cost.weights
    told = [
        f"{exported.path}: the same prediction on {checked.same:,} of {checked.images:,} test images of task "
        f"{exported.task} ({exported.name}); accuracy {checked.correct / checked.images:.4f}; "
        f"logits differ by at most {checked.difference:.1e}"
    ]
    if zeros > 0.0:
        told.append(
            f"{zeros:.1%} of the exported weights are 0. They take little space in the file and save no time: where no "
            "whole unit can be removed, a 0 is multiplied like any other weight"
        )
    return told


def table(exported: Exported) -> Table:
    """Return size, operations and times of the dense and of the exported network."""
    dense, small = exported.dense, exported.small
    sizes = list(dense.milliseconds)
    headers = ["weights", "not 0", "file", "FLOPs", "of weights not 0", *(f"batch of {size}" for size in sizes)]
    threads = f"{exported.threads} thread{'s' if exported.threads > 1 else ''}"
    shown = Table(caption=f"FLOPs of one sample; median time of a batch on the CPU, {threads}")
    shown.add_column("network")
    for header in headers:
        shown.add_column(header, justify="right")
    rows = {"dense": _values(dense), "exported": _values(small)}
    for name, values in rows.items():
        count = [f"{value:,}" for value in values[:5]]
        count[2] = f"{values[2] / 1000:,.1f} kB"
        shown.add_row(name, *count, *(f"{value:.3f} ms" for value in values[5:]))
    shares = (after / before if before else 1.0 for before, after in zip(*rows.values(), strict=True))
    shown.add_row("exported / dense", *(f"{share:.3f}" for share in shares))
    return shown


def _values(measured: Measured) -> list[float]:
    cost = measured.cost
    counts = [cost.weights, cost.nonzero, measured.bytes, cost.flops, cost.nonzero_flops]
    return [*counts, *measured.milliseconds.values()]
