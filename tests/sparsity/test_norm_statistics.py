"""Statistics of batch norms under masks, against means and variances computed by hand."""

import torch
from torch import nn

from cl_powerprop.seeding import generator
from cl_powerprop.sparsity import MaskAllocator, select_task
from cl_powerprop.sparsity.norm_statistics import batch_statistics, recalibrate


def make() -> tuple[nn.Sequential, MaskAllocator]:
    network = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
    allocator = MaskAllocator(network, "per_task")
    allocator.begin_task(generator(0, "test"))
    return network, allocator


def statistics(norm: nn.Module) -> tuple[list[float], list[float]]:
    return norm.running_mean.tolist(), norm.running_var.tolist()  # type: ignore[operator, union-attr]


def test_batch_statistics_are_used_within_the_context_and_not_kept() -> None:
    network, _ = make()
    network.train()
    network(torch.randn(50, 5) * 2)
    network.eval()
    norm, images = network[1], torch.randn(20, 5) + 3
    before, tracked = statistics(norm), int(norm.num_batches_tracked)  # type: ignore[arg-type]
    with batch_statistics(network):
        inside = network[:2](images)
    torch.testing.assert_close(inside.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(inside.std(0, unbiased=False), torch.ones(4), atol=1e-3, rtol=0)
    assert statistics(norm) == before
    assert not norm.training
    assert abs(network[:2](images).mean()) > 0.1
    assert int(norm.num_batches_tracked) - tracked in (0, 1)  # type: ignore[arg-type]


def test_recalibration_takes_the_mean_over_the_batches() -> None:
    network, allocator = make()
    network.train()
    mask = {name: torch.rand(weight.owner.shape) < 0.5 for name, weight in allocator.weights.items()}
    allocator.propose(mask)
    batches = [torch.randn(10, 5) + shift for shift in range(3)]
    recalibrate(network, (network(batch) for batch in batches))
    hidden = [network[0](batch) for batch in batches]
    norm = network[1]
    torch.testing.assert_close(norm.running_mean, torch.stack([h.mean(0) for h in hidden]).mean(0))
    torch.testing.assert_close(norm.running_var, torch.stack([h.var(0) for h in hidden]).mean(0))
    assert network.training
    assert norm.training
    assert norm.momentum == 0.1


def test_statistics_of_earlier_tasks_stay() -> None:
    network, allocator = make()
    network.train()
    network(torch.randn(30, 5))
    allocator.end_task()
    select_task(network, 0)
    first = statistics(network[1])
    allocator.begin_task(generator(0, "test", 1))
    recalibrate(network, (network(torch.randn(30, 5) + 9) for _ in range(2)))
    assert statistics(network[1]) != first
    select_task(network, 0)
    assert statistics(network[1]) == first


def test_without_batch_norms_nothing_is_computed() -> None:
    network = nn.Sequential(nn.Linear(5, 4), nn.LayerNorm(4))

    def outputs():  # type: ignore[no-untyped-def]
        raise AssertionError("computed")
        yield

    recalibrate(network, outputs())
    with batch_statistics(network):
        assert network.training
