"""Reading a safetensors file of unknown origin: its header is checked first, then its tensors are read."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from cl_powerprop.checksum import KEY, check_checksum
from cl_powerprop.errors import DataError, FileError
from cl_powerprop.files import open_file
from cl_powerprop.memory import machine_memory, too_large
from cl_powerprop.tensor_header import Entry, Header, read_header, shortened

DTYPES = {
    **{"BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "I32": torch.int32},
    **{"I64": torch.int64, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64},
}

_MESSAGE = 200  # characters of an error that are shown


class TensorFile:
    """An open safetensors file.

    Args:
        descriptor: of the file.

    Attributes:
        header: what it holds.
        metadata: text by name, without the checksum.

    Raises:
        ValueError: if the header is impossible, the content does not have its checksum, if there is one, or the
            tensors need more memory than there is.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self.header: Header = read_header(descriptor)
        self.metadata = {name: text for name, text in self.header.metadata.items() if name != KEY}
        if not check_checksum(descriptor) and KEY in self.header.metadata:
            raise ValueError("its checksum is not where it was")
        if problem := too_large(self.header.nbytes):
            raise ValueError(f"it needs {problem}")

    def description(self, expected: str) -> str | None:
        """Return the description beside the tensors; None if the file is of another format than the expected one.

        Raises:
            ValueError: if there is none, or more.
        """
        if self.metadata.get("format") != expected:
            return None
        if self.metadata.keys() != {"format", "description"}:
            raise ValueError("it has other metadata than its format, its description and perhaps a checksum")
        return self.metadata["description"]

    def read(self) -> dict[str, Tensor]:
        """Return all tensors, on the CPU, by name.

        Raises:
            ValueError: for a dtype that torch does not have, or a file that has changed meanwhile.
        """
        return {name: self._tensor(name, entry) for name, entry in self.header.entries.items()}

    def _tensor(self, name: str, entry: Entry) -> Tensor:
        dtype = DTYPES.get(entry.dtype)
        if dtype is None:
            raise ValueError(f"tensor {shortened(name)} has the dtype {entry.dtype}")
        if not math.prod(entry.shape):
            return torch.empty(entry.shape, dtype=dtype)
        content = bytearray(entry.end - entry.start)
        with open(self._descriptor, "rb", buffering=0, closefd=False) as file:
            file.seek(entry.start)
            view = memoryview(content)
            while view and (count := file.readinto(view)):
                view = view[count:]
        if view:
            raise ValueError("its end is missing")
        return torch.frombuffer(content, dtype=dtype).view(entry.shape)


@contextmanager
def open_tensors(path: Path) -> Iterator[TensorFile]:
    """Open a safetensors file; what is found wrong with it, here and in the body, is one :class:`DataError`.

    Raises:
        DataError: if it is no file, cannot be read, or is damaged.
    """
    try:
        with open_file(path, machine_memory()) as descriptor:
            yield TensorFile(descriptor)
    except DataError:
        raise
    except FileError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    except (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{path} is damaged: {shortened(' '.join(str(error).split()), _MESSAGE)}") from error


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, on the CPU, and its metadata, by name.

    Raises:
        DataError: if the file is no file, or damaged.
    """
    with open_tensors(path) as content:
        return content.read(), content.metadata
