"""Changes of the tensors in a safetensors file."""

import math
from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor


@dataclass(frozen=True)
class TensorChange:
    """What is done to one tensor.

    Attributes:
        how: fill, scale, shape, dtype, drop, rename or more.
        where: which one, modulo their number.
        value: that it is filled with.
    """

    how: str
    where: int
    value: float

    def apply(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if not tensors:
            return {"one": torch.ones(1)}
        name = sorted(tensors)[self.where % len(tensors)]
        tensor = tensors[name]
        match self.how:
            case "fill":
                changed = torch.full(tensor.shape, self.value, dtype=torch.float64)
                changed = changed.to(tensor.dtype) if math.isfinite(self.value) else changed.float()
                return tensors | {name: changed.to(tensor.dtype)}
            case "one value" if tensor.numel():
                changed = tensor.clone()
                changed.view(-1)[self.where % tensor.numel()] = self.value if tensor.is_floating_point() else 7
                return tensors | {name: changed}
            case "shape":
                return tensors | {name: tensor.flatten()[: self.where].clone()}
            case "dimension":
                return tensors | {name: tensor[None].clone()}
            case "dtype":
                return tensors | {name: tensor.to([torch.float64, torch.int8, torch.bool][self.where % 3])}
            case "drop":
                return {key: each for key, each in tensors.items() if key != name}
            case "rename":
                return {f"{key}x" if key == name else key: each for key, each in tensors.items()}
            case _:
                return tensors | {"more": torch.zeros(3)}


tensor_changes = st.builds(
    TensorChange,
    st.sampled_from(["fill", "fill", "one value", "shape", "dimension", "dtype", "drop", "rename", "more"]),
    st.integers(0, 999),
    st.sampled_from([0.0, 1.0, -1.0, 255.0, 2.0**30, 1e30, math.nan, math.inf]),
)
