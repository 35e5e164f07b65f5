"""Stands in for SLURM's programs: `sbatch` runs the jobs of a script on this machine, and keeps what it was given.

Called as sbatch, srun, scancel, scontrol or sacct; keeps everything in $SLURM_STAND_IN.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

PROGRAMS = ("sbatch", "srun", "scancel", "scontrol", "sacct")
HOME = Path(os.environ.get("SLURM_STAND_IN", "."))
ARRAY = 123


def install(folder: Path) -> None:
    """Write the programs into a folder."""
    folder.mkdir()
    for name in PROGRAMS:
        program = folder / name
        program.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} {name} "$@"\n')
        program.chmod(0o755)


def begin(job: str, restarts: int) -> None:
    """Run one job of the script, `123_0` or `123`, in a session of its own."""
    array, _, index = job.partition("_")
    environment = {"SLURM_JOB_ID": job.replace("_", "9"), "SLURM_RESTART_COUNT": str(restarts)}
    if index:
        environment |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": index}
    process = subprocess.Popen(
        ["bash", HOME / "script.sh"],
        env=os.environ | environment,
        start_new_session=True,
        cwd=HOME / "cwd",
        stdout=subprocess.DEVNULL,  # submitit waits until nobody has it any more
        stderr=(HOME / f"{job}.err").open("ab"),
    )
    (HOME / f"{job}.pid").write_text(str(process.pid))


def main(program: str, *words: str) -> None:
    with (HOME / "calls").open("a") as file:
        print(program, *words, file=file)
    match program:
        case "sbatch":
            script = Path(words[-1]).read_text()
            if "--partition=nowhere" in script:
                sys.exit("sbatch: error: invalid partition specified: nowhere")
            (HOME / "script.sh").write_text(script)
            (HOME / "cwd").symlink_to(os.getcwd())
            arrays = [line for line in script.splitlines() if line.startswith("#SBATCH --array=")]
            last = int(arrays[0].partition("0-")[2].partition("%")[0]) if arrays else 0
            for index in range(last + 1):
                begin(f"{ARRAY}_{index}" if arrays else str(ARRAY), 0)
            print(f"Submitted batch job {ARRAY}")
        case "srun":
            os.execv(words[words.index(sys.executable)], words[words.index(sys.executable) :])
        case "scontrol":
            begin(words[-1], 1)
        case "scancel":
            os.killpg(int((HOME / f"{words[-1]}.pid").read_text()), signal.SIGTERM)
        case "sacct":
            print("JobID|State|NodeList")
            for file in HOME.glob("*.pid"):
                print(file.stem, "RUNNING" if Path("/proc", file.read_text()).exists() else "FAILED", "", sep="|")


if __name__ == "__main__":
    main(*sys.argv[1:])
