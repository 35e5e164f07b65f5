"""One figure of the recorded speed."""

from pathlib import Path

import matplotlib as mpl

mpl.use("agg")
import matplotlib.pyplot as plt
import pandas as pd

COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#999999"]  # distinguishable for colour-blind readers


def plot(tables: dict[str, pd.DataFrame], path: Path) -> None:
    """Draw one panel for each of the tables, into ``path`` .png and .svg."""
    panels = {
        "strategies": _strategies,
        "stock": _stock,
        "growth_tasks": _growth,
        "split": _split,
        "seeds": _seeds,
        "steps": _steps,
    }
    drawn = [name for name in panels if name in tables]
    if not drawn:
        return
    rows = -(-len(drawn) // 2)
    figure, axes = plt.subplots(rows, 2, figsize=(12, 4 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat[len(drawn) :]:
        axis.remove()
    for axis, name in zip(axes.flat, drawn, strict=False):
        axis.spines[["top", "right"]].set_visible(False)
        panels[name](axis, tables[name])
    for suffix in ("png", "svg"):
        figure.savefig(path.with_suffix(f".{suffix}"), dpi=120)
    plt.close(figure)


def _strategies(axis, table: pd.DataFrame) -> None:
    rows = range(len(table))
    axis.barh([row - 0.2 for row in rows], table.epoch, height=0.4, color=COLOURS[0], label="an epoch")
    axis.barh([row + 0.2 for row in rows], table.task, height=0.4, color=COLOURS[1], label="the whole task")
    axis.set_yticks(rows, table.strategy)
    axis.axvline(1.0, color="black", linewidth=0.8)
    axis.invert_yaxis()
    axis.set_xlabel("times the bare PyTorch loop")
    axis.set_title("Training against a bare loop")
    axis.legend(frameon=False, ncols=2, loc="lower center", bbox_to_anchor=(0.5, -0.35))


def _stock(axis, table: pd.DataFrame) -> None:
    axis.barh(table.way, table.train, color=COLOURS[0], label="training")
    axis.barh(table.way, table.test, left=table.train, color=COLOURS[1], label="testing")
    for place, row in enumerate(table.itertuples()):
        axis.text(row.train + row.test, place, f" {row.train + row.test:.1f} s", va="center")
    axis.invert_yaxis()
    axis.set_xlabel("seconds")
    axis.set_title(f"PackNet on permuted MNIST: {table.ours_is_faster.iloc[0]:.0f} times faster")
    axis.legend(frameon=False, loc="lower right")


def _growth(axis, table: pd.DataFrame) -> None:
    for colour, (length, rows) in zip(COLOURS, table.groupby("n_tasks"), strict=False):
        axis.plot(rows.task + 1, rows.seconds, color=colour, marker=".", linewidth=0.8, label=f"{length} tasks")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("task")
    axis.set_ylabel("seconds to train it")
    axis.set_title("Time a task, EPN")
    axis.legend(frameon=False, loc="lower right")


def _split(axis, table: pd.DataFrame) -> None:
    labels = [f"{row.strategy}, {row.schedule}" for row in table.itertuples()]
    left = pd.Series(0.0, index=table.index)
    for colour, part in zip(COLOURS, ("train", "search", "eval", "logging"), strict=False):
        axis.barh(labels, 100 * table[part], left=100 * left, color=colour, label=part)
        left += table[part]
    axis.invert_yaxis()
    axis.set_xlabel("share of the time, %")
    axis.set_title("Where the time goes, 10 tasks")
    axis.legend(frameon=False, ncols=4, loc="lower center", bbox_to_anchor=(0.5, -0.35))


def _seeds(axis, table: pd.DataFrame) -> None:
    axis.barh(table.way, table.seconds, color=COLOURS[0])
    for place, row in enumerate(table.itertuples()):
        axis.text(row.seconds, place, f" {row.ratio:.2f}", va="center")
    axis.invert_yaxis()
    axis.set_xlabel("seconds for four seeds, and the ratio")
    axis.set_title("Several seeds at once")


def _steps(axis, table: pd.DataFrame) -> None:
    chosen = table[table.strategy == table.strategy.iloc[-1]]
    axis.barh(chosen.operation, 100 * chosen.share, color=COLOURS[0])
    axis.invert_yaxis()
    axis.set_xlabel("share of the time under the profiler, %")
    axis.set_title(f"What is left: {chosen.strategy.iloc[0]}")
