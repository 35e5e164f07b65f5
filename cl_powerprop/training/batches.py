"""How the samples of an epoch are divided into batches. Imports no torch."""


def count_batches(samples: int, size: int, join_lone: bool = True) -> int:
    """Return the number of batches of an epoch.

    Args:
        samples: number of samples.
        size: samples per batch.
        join_lone: a lone sample at the end joins the batch before it, because batch norm cannot train on one sample.
            With batches of one sample, or one sample in all, there is nothing to join.
    """
    lone = join_lone and 1 < size < samples and samples % size == 1
    return -(-samples // size) - lone


def divide(samples: int, size: int, join_lone: bool = True) -> list[slice]:
    """Return the range of samples of each batch of an epoch; arguments are those of :func:`count_batches`."""
    last = count_batches(samples, size, join_lone) - 1
    return [slice(index * size, samples if index == last else (index + 1) * size) for index in range(last + 1)]
