"""How much memory this machine has, so that what cannot fit is refused before it is tried. Imports no torch."""

import os
from pathlib import Path

_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # of a container, below /sys/fs/cgroup: version 2, version 1
_GIGABYTE = 10**9


def machine_memory() -> int:
    """Return the bytes of memory that this machine has or, in a container, may use."""
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for name in _LIMITS:
        try:
            text = (Path("/sys/fs/cgroup") / name).read_text(encoding="ascii").strip()
        except (OSError, ValueError):
            continue
        if text.isdigit():  # "max" is for no limit
            found.append(int(text))
    return min(found)


def too_large(needed: int) -> str:
    """Say how much memory is needed and how much there is; "" if it fits."""
    here = machine_memory()
    return "" if needed <= here else f"{gigabytes(needed)} of memory, and this machine has {gigabytes(here)}"


def gigabytes(size: float) -> str:
    """Return a number of bytes in gigabytes, to be read."""
    return f"{size / _GIGABYTE:,.3g} GB" if size < 10**15 else f"{size / _GIGABYTE:.1e} GB"
