"""How much faster than stock Avalanche: its `PermutedMNIST` with its own PackNet, against ours on the same work.

Same pictures, network, optimizer, batch, epochs and tasks; both record loss and accuracy of every training epoch, and
test all tasks so far after each task.
"""

import logging
import time

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

TASKS, EPOCHS, BATCH, REPEATS = 2, 2, 128, 5


def measure() -> pd.DataFrame:
    """Return a row a repeat: seconds of training and of evaluation, stock and ours, and how many times faster."""
    logging.getLogger("cl_powerprop").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    stock = PermutedMNIST(TASKS, return_task_id=True, dataset_root=data_root(None), seed=0)
    start = time.perf_counter()
    tensors = in_memory(stock)
    reading = time.perf_counter() - start
    rows = []
    for _ in range(REPEATS):
        network = PackNetModel(SimpleMLP(num_classes=10, hidden_size=100, hidden_layers=2, drop_rate=0.0))
        metrics = EvaluationPlugin(
            accuracy_metrics(epoch=True, experience=True), loss_metrics(epoch=True, experience=True)
        )
        packnet = StockPackNetPlugin(post_prune_epochs=1, prune_proportion=0.5)
        theirs = _run(stock, network, SupervisedTemplate, [packnet], metrics)
        network = SimpleMLP(num_classes=10, hidden_size=100, hidden_layers=2, drop_rate=0.0)
        meters = [TrainingMeter(lambda *_: None), EvaluationMeter()]
        packnet = PackNetPlugin(0.5, retrain_epochs=1)
        ours = _run(tensors, network, FastSupervisedTemplate, [meters[0], packnet, meters[1]], None)
        row = {"stock_train": theirs[0], "stock_eval": theirs[1], "train": ours[0], "eval": ours[1]}
        rows.append(row | {"faster": sum(theirs) / sum(ours), "reading_once": reading})
    return pd.DataFrame(rows)


def _run(benchmark, network, kind, plugins, evaluator) -> tuple[float, float]:
    """Return the seconds of training all tasks and of testing, after each, all tasks so far."""
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
