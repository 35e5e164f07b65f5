"""Speed compared with stock Avalanche: its `PermutedMNIST` and PackNet against this package's PackNet.

Images, network, optimizer, batch size, epochs and tasks are the same. Both record loss and accuracy of every training
epoch, and test all tasks so far after each task. Both run with torch's own number of threads, the default of stock
Avalanche, and with one thread, the default of this package.
"""

import logging
import time

import numpy as np
import pandas as pd
import torch
from avalanche.benchmarks.classic import PermutedMNIST
from avalanche.evaluation.metrics import accuracy_metrics, loss_metrics
from avalanche.models import SimpleMLP
from avalanche.models.packnet import PackNetModel
from avalanche.models.packnet import PackNetPlugin as StockPackNetPlugin
from avalanche.training.plugins import EvaluationPlugin
from avalanche.training.templates import SupervisedTemplate

from cl_powerprop import FastSupervisedTemplate, PackNetPlugin, in_memory
from cl_powerprop.data.dataset import data_root
from cl_powerprop.training.meters import EvaluationMeter, TrainingMeter

TASKS, EPOCHS, BATCH, REPEATS = 2, 2, 128, 3
THREADS = torch.get_num_threads()  # before anything sets it
OURS = "cl-powerprop, 1 thread"


def measure() -> pd.DataFrame:
    """Return the median seconds of training and testing, and how many times faster ours is with one thread."""
    logging.getLogger("cl_powerprop").setLevel(logging.ERROR)
    stock = PermutedMNIST(TASKS, return_task_id=True, dataset_root=data_root(None), seed=0)
    tensors = in_memory(stock)
    ways = {
        f"stock, {THREADS} threads (torch's own number)": lambda: _stock(stock, THREADS),
        "stock, 1 thread": lambda: _stock(stock, 1),
        f"cl-powerprop, {THREADS} threads": lambda: _ours(tensors, THREADS),
        OURS: lambda: _ours(tensors, 1),
    }
    seconds = {way: np.array([[0.0, 0.0]] * REPEATS) for way in ways}
    for repeat in range(REPEATS):
        for way, run in ways.items():
            seconds[way][repeat] = run()
    ours = seconds[OURS].sum(1)
    return pd.DataFrame(
        {"way": way, "train": train, "test": test, "ours_is_faster": np.median(times.sum(1) / ours)}
        for way, times in seconds.items()
        for train, test in [np.median(times, axis=0)]
    )


def _stock(benchmark, threads: int) -> tuple[float, float]:
    torch.set_num_threads(threads)
    network = PackNetModel(SimpleMLP(num_classes=10, hidden_size=100, hidden_layers=2, drop_rate=0.0))
    metrics = accuracy_metrics(epoch=True, experience=True), loss_metrics(epoch=True, experience=True)
    packnet = StockPackNetPlugin(post_prune_epochs=1, prune_proportion=0.5)
    return _run(benchmark, network, SupervisedTemplate, [packnet], EvaluationPlugin(*metrics))


def _ours(benchmark, threads: int) -> tuple[float, float]:
    torch.set_num_threads(threads)
    network = SimpleMLP(num_classes=10, hidden_size=100, hidden_layers=2, drop_rate=0.0)
    plugins = [TrainingMeter(lambda *_: None), PackNetPlugin(0.5, retrain_epochs=1), EvaluationMeter()]
    return _run(benchmark, network, FastSupervisedTemplate, plugins, None)


def _run(benchmark, network, kind, plugins, evaluator) -> tuple[float, float]:
    """Return the seconds of training all tasks, and of testing all tasks so far after each of them."""
    strategy = kind(
        model=network,
        optimizer=torch.optim.SGD(network.parameters(), lr=0.1, fused=True),
        train_mb_size=BATCH,
        train_epochs=EPOCHS,
        eval_mb_size=1000,
        plugins=plugins,
        evaluator=evaluator,
    )
    training = testing = 0.0
    for task, experience in enumerate(benchmark.train_stream):
        start = time.perf_counter()
        strategy.train(experience, eval_streams=[])
        trained = time.perf_counter()
        strategy.eval([benchmark.test_stream[earlier] for earlier in range(task + 1)])
        training += trained - start
        testing += time.perf_counter() - trained
    return training, testing
