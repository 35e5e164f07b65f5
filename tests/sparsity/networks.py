"""Tiny networks of every maskable kind, and plain-formula references that share no code with the package."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cl_powerprop.limits import NORMS
from cl_powerprop.networks.classifier import Classifier
from cl_powerprop.networks.residual import PreactivationBlock, ResidualBlock
from cl_powerprop.registry import find

from ..devices import device

CLASSES = 3


@dataclass(frozen=True)
class Kind:
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]


def model(name: str, **options: Any) -> Kind:
    """One of the package's own networks, only a few channels wide."""
    shape = (1, 16, 16)
    if name != "lenet5":
        options |= {"width": 4}
    return Kind(lambda: Classifier(find("model", name).make(shape, bias=True, **options), shape, [CLASSES]), shape)


class Recurrent(nn.Module):
    """Reads a sequence, and classifies it by the last output."""

    def __init__(self, layer: nn.RNNBase, features: int) -> None:
        super().__init__()
        self.layer = layer
        self.output = nn.Linear(features, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.layer(x)[0][:, -1])


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRUCell(3, 4)
        self.output = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        state = x.new_zeros(len(x), 4)
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.output(state)


class Attention(nn.Module):
    """Keys and values of other widths than the queries have projections of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, kdim=3, vdim=5, batch_first=True)
        self.output = nn.Bilinear(4, 4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.attention(x[..., :4], x[..., :3], x[..., :5], need_weights=False)[0]
        return self.output(mixed[:, 0], mixed[:, 1])


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        block = nn.TransformerEncoderLayer(8, 2, 12, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.output = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.encoder(x).mean(1))


KINDS = {
    "lstm": Kind(lambda: Recurrent(nn.LSTM(3, 5, num_layers=2, batch_first=True), 5), (4, 3)),
    "gru": Kind(lambda: Recurrent(nn.GRU(3, 4, bidirectional=True, batch_first=True), 8), (4, 3)),
    "lstm_projected": Kind(lambda: Recurrent(nn.LSTM(3, 5, proj_size=2, batch_first=True), 2), (4, 3)),
    "gru_cell": Kind(Cell, (4, 3)),
    "attention": Kind(Attention, (3, 5)),
    "transformer": Kind(Transformer, (3, 8)),
    "linear": Kind(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, CLASSES)), (6,)),
    "conv1d": Kind(lambda: nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, CLASSES)), (2, 6)),
    "conv2d": Kind(
        lambda: nn.Sequential(nn.Conv2d(2, 4, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(16, CLASSES)), (2, 4, 4)
    ),
    "conv3d": Kind(
        lambda: nn.Sequential(nn.Conv3d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(24, CLASSES)), (1, 3, 3, 3)
    ),
    "conv_transpose1d": Kind(
        lambda: nn.Sequential(nn.ConvTranspose1d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(12, CLASSES)), (2, 3)
    ),
    "conv_transpose2d": Kind(
        lambda: nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(27, CLASSES)), (2, 2, 2)
    ),
    "conv_transpose3d": Kind(
        lambda: nn.Sequential(nn.ConvTranspose3d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(54, CLASSES)),
        (1, 2, 2, 2),
    ),
    "batch_norm": Kind(
        lambda: nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES)), (6,)
    ),
    "layer_norm": Kind(lambda: nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, CLASSES)), (6,)),
    "group_norm": Kind(
        lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(16, CLASSES)),
        (1, 4, 4),
    ),
    "residual": Kind(
        lambda: nn.Sequential(ResidualBlock(2, 4, 2, "batch", True), nn.Flatten(), nn.Linear(16, CLASSES)), (2, 4, 4)
    ),
    "preactivation": Kind(
        lambda: nn.Sequential(PreactivationBlock(2, 4, 2, "batch", True), nn.Flatten(), nn.Linear(16, CLASSES)),
        (2, 4, 4),
    ),
    **{f"convnet_{norm}": model("convnet", norm=norm) for norm in NORMS},
    **{f"resnet18_{norm}": model("resnet18", norm=norm) for norm in NORMS},
    "lenet5": model("lenet5"),
}


def make_network(kind: str, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return KINDS[kind].build().to(device())


def make_batch(kind: str, seed: int, count: int = 12) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, *KINDS[kind].shape, generator=generator)
    return x.to(device()), torch.randint(CLASSES, (count,), generator=generator).to(device())


def power(phi: Tensor, alpha: float) -> Tensor:
    """The formula of the paper, element by element in Python's own double precision."""
    values = [abs(value) ** (alpha - 1.0) * value for value in phi.double().flatten().tolist()]
    return torch.tensor(values, dtype=torch.float64, device=phi.device).view(phi.shape)


def root(theta: Tensor, alpha: float) -> Tensor:
    values = [(1.0 if value > 0 else -1.0) * abs(value) ** (1.0 / alpha) for value in theta.double().flatten().tolist()]
    return torch.tensor(values, dtype=torch.float64, device=theta.device).view(theta.shape)


def bits(tensor: Tensor) -> list[int]:
    """The bits of a float32 tensor, in which -0.0 and 0.0 differ and a nan equals itself."""
    assert tensor.dtype == torch.float32
    return tensor.detach().contiguous().view(torch.int32).flatten().tolist()
