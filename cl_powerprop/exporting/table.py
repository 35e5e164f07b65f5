"""The table of an exported network against the dense one, and what is to be said of it."""

from rich.table import Table

from cl_powerprop.exporting.export import Exported, Measured

WIDTH = 130  # of the table where there is no terminal


def table(exported: Exported) -> Table:
    """Return sizes, operations and times of the dense and of the exported network."""
    dense = exported.costs["dense"]
    threads = f"{exported.threads} thread{'s' if exported.threads > 1 else ''}"
    shown = Table(
        caption=f"FLOPs of one sample by dense kernels, and without zeros; median time of a batch on the CPU, {threads}"
    )
    shown.add_column("network")
    batches = [f"batch of {size}" for size in dense.milliseconds]
    for header in ("weights", "not 0", "file", "FLOPs", "without zeros", *batches):
        shown.add_column(header, justify="right")
    for name, measured in exported.costs.items():
        weights, nonzero, size, *flops = _counts(measured)
        times = (f"{time:.3f} ms" for time in measured.milliseconds.values())
        shown.add_row(
            name, f"{weights:,}", f"{nonzero:,}", f"{size / 1000:,.1f} kB", *(f"{n:,}" for n in flops), *times
        )
    for name, measured in exported.costs.items():
        if measured is not dense:
            pairs = zip(_values(measured), _values(dense), strict=True)
            shown.add_row(f"{name} / dense", *(f"{after / before:.3f}" if before else "" for after, before in pairs))
    return shown


def _counts(measured: Measured) -> list[int]:
    cost = measured.cost
    return [cost.weights, cost.nonzero, measured.bytes, cost.flops, cost.nonzero_flops]


def _values(measured: Measured) -> list[float]:
    return [*_counts(measured), *measured.milliseconds.values()]


def lines(exported: Exported) -> list[str]:
    """Return what is to be said below the table: how the networks agree, and where zeros save no time."""
    checked, dense, cost = exported.checked, exported.costs["dense"].cost, exported.costs["exported"].cost
    told = [
        f"{exported.path}: the same prediction on {checked.same:,} of {checked.images:,} test images of task "
        f"{exported.task} ({exported.name}); accuracy {checked.correct / checked.images:.4f}; "
        f"logits differ by at most {checked.difference:.1e}"
    ]
    if cost.nonzero < cost.weights:
        told.append(
            f"{1.0 - cost.nonzero / cost.weights:.1%} of the exported weights are 0. They take little space in the "
            "file, but dense kernels multiply a 0 like any other weight: only removed units save time"
        )
        if cost.flops == dense.flops:
            told[-1] += ", and here there were none"
        if len(exported.costs) > 2:
            told[-1] += "; torch's sparse kernels skip zeros: load_exported(FILE, sparse_kernels=True)"
    return told
