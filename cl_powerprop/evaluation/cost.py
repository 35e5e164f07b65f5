"""What has to be kept of the tasks so far, in bits: to answer them, and not to forget them while learning the next.

What a next task only begins with does not count: weights that no task uses, learned scores, an optimizer's state.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from torch import Tensor, nn
from torch.nn.utils import parametrize

from cl_powerprop.networks.heads import TaskHeads
from cl_powerprop.networks.independent import IndependentNetworks
from cl_powerprop.sparsity.huffman import huffman_bits
from cl_powerprop.sparsity.mask_coding import encode_masks
from cl_powerprop.sparsity.maskable import Maskable, maskable_weights
from cl_powerprop.sparsity.masked_weight import MaskedWeight, PerTaskTensor

_FLOAT = 32  # bits of a value
_KEPT = 6  # fields of a Cost that add up


@dataclass(frozen=True)
class Cost:
    """What a method keeps, in bits; numbers have 32.

    Attributes:
        weights: maskable weights that some task uses; without masks, all of all networks.
        masks: masks of all tasks, compressed as in the file of a network.
        heads: output layers of all tasks.
        others: biases, norms and what else has no mask: one for all tasks, or one for each.
        buffers: samples of earlier tasks.
        importances: importances of weights, and values of weights that are no longer those of the network.
        masks_uncompressed: masks with one bit for each weight and task.
        masks_huffman: masks as WSN codes them (see :func:`~cl_powerprop.sparsity.huffman.huffman_bits`).
        one_network: a dense network for one task: the largest, with the widest of its heads.
        one_network_weights: the maskable weights in it.
    """

    weights: int
    masks: int
    heads: int
    others: int
    buffers: int
    importances: int
    masks_uncompressed: int
    masks_huffman: int
    one_network: int
    one_network_weights: int

    @property
    def total(self) -> int:
        """All that is kept."""
        return sum(list(asdict(self).values())[:_KEPT])

    def rows(self) -> Iterator[tuple[str, int]]:
        """Yield each item of what is kept, their sum, and what they are compared with."""
        items = asdict(self)
        yield from list(items.items())[:_KEPT]
        yield "total", self.total
        yield from list(items.items())[_KEPT:]

    def metrics(self) -> dict[str, float | None]:
        """Return the metrics by name."""
        used = self.weights + self.masks_huffman
        return {
            "mask_bits_stored": self.masks,
            "total_size": self.total / self.one_network if self.one_network else None,
            "wsn_capacity": used / self.one_network_weights if self.one_network_weights else None,
        }


def measure_cost(model: nn.Module, buffers: int = 0, importances: int = 0) -> Cost:
    """Count what a trained network takes.

    Args:
        model: any; of separate networks for tasks, each counts.
        buffers, importances: bits that the method keeps beside it.
    """
    networks = list(model.networks) if isinstance(model, IndependentNetworks) else [model]
    weights = [weight for network in networks for weight in _weights(network)]
    masked = [weight.masked for weight in weights if weight.masked is not None]
    sizes = [(_FLOAT * sum(weight.value.numel() for weight in _weights(network)), network) for network in networks]
    one_network, one_network_weights = max(
        (dense + _bits_of_one_task(network) + max(_head_bits(network), default=0), dense) for dense, network in sizes
    )
    return Cost(
        weights=_FLOAT * sum(_used(weight) for weight in weights),
        masks=8 * sum(len(encode_masks(each.masks, each.owner.shape)) for each in masked),
        heads=sum(sum(_head_bits(network)) for network in networks),
        others=sum(_bits_of_all_tasks(network) for network in networks),
        buffers=buffers,
        importances=importances,
        masks_uncompressed=8 * sum(each.masks.numel() for each in masked),
        masks_huffman=sum(huffman_bits(each.masks, each.owner.numel()) for each in masked),
        one_network=one_network,
        one_network_weights=one_network_weights,
    )


def _weights(network: nn.Module) -> list[Maskable]:
    return list(maskable_weights(network, (TaskHeads,)).values())


def _used(weight: Maskable) -> int:
    masked = weight.masked
    return int(masked.frozen.sum()) if masked is not None and masked.tasks else weight.value.numel()


def _head_bits(network: nn.Module) -> list[int]:
    """Return the size of each head."""
    heads = [module for module in network.modules() if isinstance(module, TaskHeads)]
    return [_FLOAT * sum(each.numel() for each in head.parameters()) for module in heads for head in module.heads]


def _bits_of_one_task(network: nn.Module) -> int:
    """Return the size of what has no mask, heads apart, as one task uses it."""
    return _FLOAT * sum(tensor.numel() for tensor, _ in _others(network))


def _bits_of_all_tasks(network: nn.Module) -> int:
    """Return the same for all tasks, some of which have values of their own."""
    return _FLOAT * sum(tensor.numel() * tasks for tensor, tasks in _others(network))


def _others(network: nn.Module) -> Iterator[tuple[Tensor, int]]:
    """Yield each tensor that is neither a maskable weight nor in a head, and of how many tasks its values are kept."""
    left_out = {id(tensor) for weight in _weights(network) for tensor in weight.trained}
    for module in network.modules():
        if isinstance(module, (TaskHeads, MaskedWeight, PerTaskTensor)):
            left_out |= {id(tensor) for tensor in [*module.parameters(), *module.buffers()]}
    for module in network.modules():
        per_task = _per_task(module)
        kept = {**module._parameters, **module._buffers}
        for name, tensor in kept.items():
            if tensor is None or id(tensor) in left_out or name in module._non_persistent_buffers_set:
                continue
            left_out.add(id(tensor))
            if tensor.is_floating_point():
                yield tensor, per_task


def _per_task(module: nn.Module) -> int:
    """Return how many tasks keep values of their own of the tensor behind a parametrization, or 1 if none does."""
    if not isinstance(module, parametrize.ParametrizationList):
        return 1
    stored = [len(step.values) for step in module if isinstance(step, PerTaskTensor)]
    return max([1, *stored])
