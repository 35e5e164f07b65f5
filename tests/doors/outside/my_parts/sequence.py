"""A task sequence: the same images, each task with its pixels shifted further."""

from dataclasses import dataclass

from torch import Tensor

from cl_powerprop import DataSource, SequenceConfig, TaskSequence, register_sequence, same_images


@dataclass(kw_only=True)
class ShiftedConfig(SequenceConfig):
    step: int = 1


@dataclass(frozen=True)
class Shift:
    pixels: int

    def __call__(self, images: Tensor) -> Tensor:
        return images.roll(self.pixels, dims=3)


@register_sequence("shifted", ShiftedConfig)
def shifted(config: ShiftedConfig, data: DataSource, seed: int) -> TaskSequence:
    """Every task shows all classes, moved to the right by some pixels."""
    train, test = data.pixels()
    views = {f"shift_{task}": Shift(task * config.step) for task in range(config.n_tasks)}
    return same_images(
        "shifted", train, test, data.classes, views, scenario=config.scenario, validation=config.validation, seed=seed
    )
