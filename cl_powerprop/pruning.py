"""The paper's single-task experiment: train a dense LeNet-300-100, then prune it in one shot, over alphas and seeds.

The setup is that of the notebook published with Schwarz et al. 2021 (section 3.1, figure 2): truncated-normal fan-in
initialisation, plain SGD, and magnitude pruning of each layer without retraining. The output layer keeps twice the
density of the other layers, which the notebook calls half the sparsity. Pixels are in [0, 1]. The last 5,000 training
images are held out, and not used since no setting is chosen here.
"""

import datetime
import itertools
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from cl_powerprop.analysis.pruning import plot_pruning, print_pruning, summarize_pruning
from cl_powerprop.assemble import choose_device
from cl_powerprop.config import RunConfig, repeatable_yaml
from cl_powerprop.errors import DivergedError
from cl_powerprop.models.mlp import mlp
from cl_powerprop.networks.classifier import Classifier
from cl_powerprop.output import say
from cl_powerprop.record import Job, git_commit
from cl_powerprop.run_folder import SCHEMA_VERSION, RunFolder
from cl_powerprop.sections import PruningConfig
from cl_powerprop.seeding import generator
from cl_powerprop.source import DataSource, is_verified
from cl_powerprop.sparsity import powerpropagate, rank
from cl_powerprop.sparsity.maskable import maskable_weights
from cl_powerprop.tasks import Pixels, Split
from cl_powerprop.tracking.progress_lines import ProgressLines, has_bar
from cl_powerprop.training.tensor_data import TensorLoader

_HELD_OUT = 12  # a twelfth of the training images is held out, 5,000 of the full MNIST
_STEPS_A_CHECK = 1000  # steps between two checks of the loss, each of which waits for the device


def run_pruning(config: RunConfig, path: Path, quiet: bool = False, job: Job | None = None) -> pd.DataFrame:
    """Train and prune for every alpha and seed; write `pruning.csv`, its summary and its plot into ``path``.

    Args:
        config: a config with ``pruning`` options.
        path: the run folder to write.
        quiet: show no progress.
        job: the run's place in a multirun.

    Returns:
        A row for each (alpha, seed, density), with the test accuracy.

    Raises:
        UserError: for an impossible config, missing data, or a folder that exists already.
        DivergedError: if a loss is no longer finite; finished results are in the folder, which is marked failed.
    """
    settings = config.pruning
    assert settings is not None
    config.check()
    torch.set_num_threads(config.train.threads)
    device = choose_device(config.device)
    train, test = DataSource(config.data, device).pixels()
    used = len(train.labels) - len(train.labels) // _HELD_OUT
    train = Pixels(train.images[:used], train.labels[:used], mean=0.0, std=1.0)
    test = Pixels(test.images, test.labels, mean=0.0, std=1.0)
    folder = RunFolder(path)
    folder.write_text("config.yaml", repeatable_yaml(config))
    content = {
        "schema_version": SCHEMA_VERSION,
        "kind": "pruning",
        "status": "running",
        "data": config.data.name,
        "data_verified": is_verified(config.data),
        "device": str(device),
        "git_commit": git_commit(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "job": job.number if job else None,
        "settings": vars(settings),
        "error": None,
    }
    folder.write_json("run.json", content)
    rows: list[dict[str, float]] = []
    start = time.perf_counter()
    jobs = list(itertools.product(zip(settings.alphas, settings.lrs, strict=True), settings.seeds))
    shown, console = config.progress and not quiet, Console(stderr=True)
    lines = ProgressLines(shown and not has_bar(console), job.title if job else "")
    lines.start([1] * len(jobs))
    try:
        with _progress(console, shown and (job is None or job.live)) as progress:
            bar = progress.add_task("training", total=len(jobs) * settings.steps)
            for number, ((alpha, lr), seed) in enumerate(jobs, start=1):
                name = f"alpha {alpha:g}, seed {seed}"
                progress.update(bar, description=name)
                network = _train(settings, alpha, lr, seed, train, lambda steps: progress.advance(bar, steps))
                for density, accuracy in _prune(network, settings.densities, test):
                    rows.append({"alpha": alpha, "seed": seed, "density": density, "accuracy": accuracy})
                folder.write_csv("pruning.csv", list(rows[0]), [list(row.values()) for row in rows])
                last = rows[-1]
                measured = f"accuracy {last['accuracy']:.3f} at density {last['density']:g}"
                lines.write(f"network {number}/{len(jobs)}, {name}: {measured}", number)
    except BaseException as error:
        folder.write_json("run.json", content | {"status": "failed", "error": str(error) or type(error).__name__})
        raise
    table = pd.DataFrame(rows)
    summary = summarize_pruning(table)
    folder.write_csv("pruning_summary.csv", list(summary.columns), summary.to_numpy().tolist())
    plot_pruning(summary, folder.path / "pruning")
    seconds = round(time.perf_counter() - start, 1)
    folder.write_json("run.json", content | {"status": "complete", "seconds": {"total": seconds}})
    print_pruning(summary)
    say(f"run folder: {path}")
    return table


def _progress(console: Console, enabled: bool) -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, disable=not enabled or not console.is_terminal)


@torch.no_grad()
def _truncated_normal_fan_in(network: nn.Module, seed: int) -> None:
    """Draw weights with variance 1 / fan_in from a normal truncated at two standard deviations; biases start at 0."""
    draws = generator(seed, "init")
    for layer in maskable_weights(network).values():
        weight = layer.value
        std = math.sqrt(1.0 / weight[0].numel()) / 0.87962566103423978  # the deviation of a truncated unit normal
        weight.copy_(nn.init.trunc_normal_(torch.empty(weight.shape), 0.0, std, -2 * std, 2 * std, generator=draws))
        layer.module.bias.zero_()  # type: ignore[operator]


def _train(settings: PruningConfig, alpha: float, lr: float, seed: int, train: Pixels, advance: object) -> nn.Module:
    shape = train.images.shape[1:]
    features = mlp(shape, hidden=settings.hidden, bias=True)
    network = Classifier(features, shape, [int(train.labels.max()) + 1])
    _truncated_normal_fan_in(network, seed)
    powerpropagate(network, alpha).to(train.images.device)
    optimizer = torch.optim.SGD(network.parameters(), lr=lr)
    everything = Split(train, torch.arange(len(train.labels), device=train.labels.device), train.labels)
    loader = TensorLoader(everything, 0, settings.batch_size, generator(seed, "order"))
    batches = itertools.islice(itertools.chain.from_iterable(itertools.repeat(loader)), settings.steps)
    for step, (images, labels, _) in enumerate(batches, start=1):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(network(images), labels)
        loss.backward()
        optimizer.step()
        if step % _STEPS_A_CHECK == 0 or step == settings.steps:
            if not math.isfinite(float(loss.detach())):
                raise DivergedError(
                    f"training diverged by step {step}, alpha {alpha:g}, seed {seed}: lower pruning.lrs"
                )
            advance(_STEPS_A_CHECK)  # type: ignore[operator]
    return network


@torch.no_grad()
def _prune(network: nn.Module, densities: list[float], test: Pixels) -> Iterator[tuple[float, float]]:
    """Yield (density, test accuracy) of the network pruned to each density of its hidden layers."""
    everything = Split(test, torch.arange(len(test.labels), device=test.labels.device), test.labels)
    images = everything.images()
    weights = []
    for weight in maskable_weights(network).values():
        masks = weight.mask()
        weights.append((masks, rank(masks.theta(weight.stored).abs())))
    for density in densities:
        for index, (masks, ranks) in enumerate(weights):
            share = min(1.0, 2 * density) if index == len(weights) - 1 else density
            masks.set_training_view(ranks < round(share * ranks.numel()))
        yield density, float((network(images).argmax(1) == test.labels).float().mean())
