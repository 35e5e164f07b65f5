"""What each process of `torchrun` does for the tests: all runs of a file, one after the other.

    torchrun --nproc-per-node=2 several_ranks.py FOLDER

``FOLDER/runs.json`` has the words of each run by name. What the masks of sparse training were after each change is
written to ``FOLDER/masks-RANK.json``: by run, a hash after each.
"""

import hashlib
import json
import os
import sys
from pathlib import Path

import cl_powerprop
from cl_powerprop.sparsity.controllers.base import Controller


def main(folder: Path) -> None:
    masks: dict[str, list[str]] = {}
    update = Controller._update

    def noted(controller: Controller) -> None:
        update(controller)
        digest = hashlib.sha256(b"".join(each.active.numpy().tobytes() for each in controller.weights))
        masks[name].append(digest.hexdigest())

    Controller._update = noted  # type: ignore[method-assign]
    for name, words in json.loads((folder / "runs.json").read_text()).items():
        masks[name] = []
        cl_powerprop.run(words, folder / name, quiet=True)
    (folder / f"masks-{os.environ['RANK']}.json").write_text(json.dumps(masks))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
