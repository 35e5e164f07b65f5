"""Measure the speed on a GPU, or on whatever device there is, and write a table for each part.

    CL_POWERPROP_DATA=... python benchmarks/speed/gpu.py                        # all parts, on the full MNIST
    CL_POWERPROP_DATA=... python benchmarks/speed/gpu.py epochs together        # some parts
    python benchmarks/speed/gpu.py --data digits --small --out /tmp/speed       # tries everything out on a CPU

A part goes on until its time is over, and at least until what matters most has been measured once; what it has is
written as it goes. Every table has the name of the device and torch's version.
"""

import argparse
import faulthandler
import os
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cl_powerprop.errors import UserError

Tables = Iterator[tuple[pd.DataFrame, bool]]
"""Tables of what is measured so far, and whether it would do."""


@dataclass(frozen=True)
class Sizes:
    """What is measured.

    Attributes:
        data: name of the data set.
        small: measure as little as shows that the script works.
        device: name of the device.
    """

    data: str
    small: bool
    device: str

    def either(self, usual: int, small: int) -> int:
        """Return the usual number, or the small one."""
        return small if self.small else usual


def parts() -> dict[str, Callable[[Sizes], Tables]]:
    """Return the functions that measure each part, by name."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # silences torch's profiler; torch reads this once
    warnings.filterwarnings("ignore", "No loggers specified")
    import gpu_epochs
    import gpu_networks
    import gpu_seeds

    return {
        "epochs": gpu_epochs.measure_epochs,
        "launches": gpu_epochs.measure_launches,
        "together": gpu_seeds.measure_together,
        "experiment": gpu_seeds.measure_experiment,
        "processes": gpu_seeds.measure_processes,
        "networks": gpu_networks.measure_networks,
    }


PARTS = ("epochs", "launches", "together", "experiment", "processes", "networks")


def main() -> None:
    faulthandler.enable()  # a crash in the driver says where it was
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"what to measure: {', '.join(PARTS)}; all by default")
    parser.add_argument("--data", default="mnist", help="mnist; mnist5k and digits are embedded")
    parser.add_argument("--small", action="store_true", help="small networks, few steps: tries the script out")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, ...")
    parser.add_argument("--seconds", type=float, default=60.0, help="time of each part; what has begun is ended")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "gpu", help="folder for the tables")
    options = parser.parse_args()
    if unknown := set(options.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; choose from: {', '.join(PARTS)}")
    sizes = Sizes(options.data, options.small, options.device)
    try:
        where = _where(options.device)
        options.out.mkdir(parents=True, exist_ok=True)
        print(" ".join(f"{name} {value}" for name, value in where.items()), flush=True)
        for name, measure in parts().items():
            if not options.parts or name in options.parts:
                _take(measure(sizes), options.seconds, where, options.out / f"{name}.csv")
    except (UserError, OSError) as error:
        parser.error(str(error))


def _take(tables: Tables, seconds: float, where: dict[str, str], file: Path) -> None:
    """Write the tables of a part until its time is over, and print the last one."""
    start, rows = time.perf_counter(), pd.DataFrame()
    for rows, would_do in tables:
        rows.assign(**where).to_csv(file, index=False, float_format="%.6g")
        if would_do and time.perf_counter() - start > seconds:
            break
    took = time.perf_counter() - start
    print(f"\n{file.stem}, {took:.0f} s\n{rows.to_string(index=False, float_format='{:.4g}'.format)}", flush=True)


def _where(device: str) -> dict[str, str]:
    """Return the names of the device and of torch's version."""
    import torch

    from cl_powerprop.assemble import choose_device

    chosen = choose_device(device)
    name = torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else "CPU"
    return {"device": name, "torch": torch.__version__}


if __name__ == "__main__":
    main()
