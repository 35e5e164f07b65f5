"""Weights & Biases: one W&B run for each run."""

import itertools
import logging
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from cl_powerprop.errors import ConfigurationError, check_choice
from cl_powerprop.naming import text
from cl_powerprop.privacy import redact_all
from cl_powerprop.record import new_run_id
from cl_powerprop.run_folder import COPY
from cl_powerprop.shown import shell_word
from cl_powerprop.tracking.layer_curves import LayerCurves
from cl_powerprop.tracking.stream import Row, RunView, SinkConfig, register_sink
from cl_powerprop.tracking.wandb_account import UPLOADED, has_credentials
from cl_powerprop.tracking.wandb_environment import OFFLINE, chosen_by_the_user, first_of_each
from cl_powerprop.tracking.wandb_service import end_service

log = logging.getLogger("cl_powerprop")

_PATIENCE = 60  # seconds to wait for W&B's service, without the time that it waits for the network
_TOLD = ("group", "job_type", "name", "tags")  # texts that others read
_TABLES = ("accuracy_matrix", "capacity", "reuse", "mask_overlap", "sparsity")


MODES = ("online", "offline", "disabled")


@dataclass(kw_only=True)
class WandbConfig(SinkConfig):
    """Options of `logger=[wandb]`; conf/logger/wandb.yaml explains them."""

    mode: str | None
    project: str | None
    entity: str | None
    group: str | None
    job_type: str | None
    name: str | None
    tags: list[str] | None
    figures: bool
    log_model: bool
    dir: str
    timeout: float
    label: ClassVar[str] = "W&B"

    def __post_init__(self) -> None:
        self.dir = os.path.expanduser(self.dir)

    @property
    def enabled(self) -> bool:
        return (self.mode or chosen_by_the_user().get("mode")) != "disabled"

    def check(self) -> None:
        if self.mode is not None:
            check_choice("logger.wandb.mode", self.mode, MODES)
        chosen_by_the_user()
        if not self.timeout > 0:
            raise ConfigurationError(f"logger.wandb.timeout must be above 0, not {self.timeout}")

    def check_together(self) -> None:
        if self.enabled and "id" in chosen_by_the_user():  # as a W&B agent sets it
            raise ConfigurationError(
                "WANDB_RUN_ID is the id of one W&B run, and each of the seeds trained together has its own; use "
                "seeds_together=1"
            )

    def prepare(self) -> None:
        # wandb.init imports this module, which takes three times as long once torch is imported.
        import wandb.sdk.launch.inputs.internal  # noqa: F401


@register_sink("wandb", WandbConfig)
class WandbSink:
    """Sends curves during the run, and everything else at its end.

    The W&B run has the run's own id, or the one that a W&B agent has set; a resumed run continues its W&B run. W&B
    starts in the background: if it can start neither online nor offline, a later call raises its error.

    Args:
        settings: options of the logger.
        run: the run to log.
    """

    def __init__(self, settings: WandbConfig, run: RunView) -> None:
        self._settings = settings
        self._view = run
        self._starts = [0, *itertools.accumulate(run.steps)]
        self._layers = LayerCurves(run.capacity)
        self._point: tuple[int, int, int] | None = None
        self._values: dict[str, float] = {}  # measured at that point
        self._waiting: list[tuple[int, dict[str, float]]] = []  # values of earlier points that are not sent yet
        self._files = 0
        self._chosen: dict[str, Any] = {}  # what the W&B run is started with
        self._run: Any = None
        self._hangs = False  # whether W&B's service has stopped answering
        # W&B has its own thread: the first task does not wait for it to start, and no task waits without limit.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="wandb")
        self._starting = self._thread.submit(self._start)

    def _start(self) -> Any:
        import wandb

        settings, view, facts = self._settings, self._view, self._view.facts
        Path(settings.dir).mkdir(parents=True, exist_ok=True)
        begun = view.memory  # empty, unless the run is resumed
        user = chosen_by_the_user(view.folder.name if view.multirun else None)
        ours = {
            "mode": "online",
            "project": "cl-powerprop",
            "group": view.multirun,
            "job_type": facts.strategy,
            "name": view.name or f"{facts.strategy}, alpha {text(facts.alpha)}, seed {facts.seed}",
        }
        chosen = first_of_each(vars(settings), begun, user, ours)
        chosen |= redact_all({key: chosen[key] for key in _TOLD})
        self._chosen = chosen
        run_id = begun.get("id") or user.get("id") or facts.run_id  # a W&B agent waits for the id that it has set
        where = {key: getattr(facts, key) for key in ("run_id", "versions", "host", "git_commit", "device")}
        config = {**view.config, "task_names": list(facts.task_names), "run": where}
        say = log.debug if user.get("silent") else log.warning

        def init(mode: str, run_id: str = run_id) -> Any:
            return wandb.init(
                **chosen | {"mode": mode},
                id=run_id,
                resume="allow" if "id" in begun else user.get("resume", "allow"),
                config=config,
                dir=settings.dir,
                allow_val_change=True,  # a resumed run may continue with other versions, or on another machine
                reinit="create_new",  # do not end other W&B runs of this process
                settings=wandb.Settings(
                    console="off",  # it would record the live display and the user's paths
                    silent=True,
                    save_code=False,
                    x_disable_meta=True,  # the command line and paths of programs, with whatever secrets they have
                    init_timeout=settings.timeout,
                    finish_timeout=settings.timeout,
                    finish_timeout_raises=True,
                ),
            )

        if chosen["mode"] in OFFLINE:
            return init(chosen["mode"])
        reason = "no API key was found (wandb login sets one)"
        if has_credentials():
            remains = f"*wandb/run-*-{run_id}"
            before = set(Path(settings.dir).glob(remains))
            try:
                run = init(chosen["mode"])
                say(f"W&B: {run.url}")
                return run
            except Exception as error:  # noqa: BLE001, RUF100 (of many kinds: no network, a wrong key, ...)
                reason = _line(error)
                for folder in set(Path(settings.dir).glob(remains)) - before:
                    shutil.rmtree(folder, ignore_errors=True)  # it holds no data, and sync would fail on it
                run_id = new_run_id()  # W&B's service does not release the id of a run that failed to start
        run = init("offline", run_id)
        message = f"W&B: {reason}; this run is logged offline, upload it later by cl-powerprop sync {_folder(run)}"
        if has_credentials():  # then the user expects the run to be online
            view.tell(message)
        else:
            say(message)
        return run

    def _in_time(self, call: Callable[[], None], network: float = 0) -> None:
        """Make a call in W&B's thread, with a time limit: the call would never end if W&B's service hung.

        Args:
            call: the call to make.
            network: seconds that it may wait for the network.

        Raises:
            TimeoutError: if the call takes longer; the service is then ended.
        """
        seconds = _PATIENCE + network
        future = self._thread.submit(call)
        try:
            future.result(seconds)
            return
        except TimeoutError:
            if future.done():  # the call itself raised it
                raise
        self._hangs = True
        end_service(seconds=0)
        raise TimeoutError(f"W&B's service has not answered within {seconds:g} s")

    def write(self, row: Row) -> None:
        """Add a value; all values of the same tasks, epoch and step are sent together."""
        point = (row.trained_tasks, row.epoch, row.step)
        if point != self._point:
            self._end_moment()
            self._point = point
            # Only online: offline nobody watches, and a resumed run would send the values of an unfinished task again.
            if self._run is not None and not self._run.offline:
                self._in_time(self._send)
        self._values[row.curve] = row.value

    def _end_moment(self) -> None:
        if self._point is not None and self._values:
            trained, epoch, step = self._point
            where = {"trained_tasks": trained, "epoch": epoch, "step": step, "progress": self._progress(trained, step)}
            # W&B's step counter depends on the point alone, which shows what a resumed run has sent before.
            between = where["progress"] == trained
            self._waiting.append((2 * step + between, where | self._values))
            self._values = {}

    def flush(self) -> None:
        """Send all values so far, each layer's capacity and the run's files as they are now, if W&B has started."""
        self._values.update(self._layers.new())
        self._end_moment()
        if self._starting.done():
            self._in_time(self._send_all)

    def _send_all(self) -> None:
        self._send()
        self._copy_files()

    def _send(self) -> None:
        if self._run is None:
            self._run = self._starting.result()
            self._introduce()
        known = self._view.memory
        for count, moment in self._waiting:
            if count >= self._run.starting_step and count > known["sent"]:
                self._run.log(moment, step=count)
                known["sent"] = count
        self._waiting = []

    def _introduce(self) -> None:
        """Define the x-axes of curves, and remember in the run folder where the W&B run is."""
        run = self._run
        for curves in ("train/*", "sparsity/*"):
            run.define_metric(curves, step_metric="step")
        for curves in ("valid/*", "test/*", "capacity/*"):
            run.define_metric(curves, step_metric="progress")
        memory = self._view.memory
        sent = memory.get("sent", -1) if memory.get("id") == run.id else -1
        memory.update(self._chosen)
        memory.update({key: getattr(run, key) or None for key in ("entity", "project", "id", "group", "name")})
        memory.update({"url": None if run.offline else run.url, "sent": sent})

    def _progress(self, trained: int, step: int) -> float:
        """Return the number of trained tasks plus the finished share of the current one: the x-axis over tasks."""
        if trained + 1 >= len(self._starts):
            return float(trained)
        start, end = self._starts[trained], self._starts[trained + 1]
        return trained + min(1.0, max(0.0, (step - start) / max(1, end - start)))

    def _copy_files(self) -> None:
        """Copy the run's files to the folder that W&B uploads, for `cl-powerprop pull`."""
        files = Path(self._run.dir)
        target = files / COPY
        target.mkdir(exist_ok=True)
        paths = [path for path in self._view.folder.iterdir() if path.suffix in (".json", ".yaml", ".csv")]
        for path in paths:
            shutil.copyfile(path, target / path.name)
        if len(paths) > self._files:  # W&B itself uploads changes of files that it knows
            self._run.save(str(target / "*"), base_path=str(files), policy="live")
            self._files = len(paths)

    def close(self) -> None:
        """Send summary, tables, figures, files and, with ``log_model``, the network; then finish the W&B run."""
        self._values.update(self._layers.new())
        self._end_moment()
        # W&B may still have to start, online and then offline, before it uploads.
        self._in_time(self._finish, network=3 * self._settings.timeout)
        self._thread.shutdown(wait=False)

    def _finish(self) -> None:
        self._send()
        outcome = asdict(self._view.outcome())
        self._run.summary.update(outcome.pop("metrics") | outcome)
        self._copy_files()
        try:
            self._send_tables()
        except Exception as error:  # noqa: BLE001, RUF100 (they need the server at once; the rest is sent later)
            self._view.tell(f"W&B took no tables or figures: {_line(error)}")
        try:
            self._run.finish(exit_code=0 if outcome["status"] == "complete" else 1)
        except TimeoutError:
            raise TimeoutError(
                f"not everything was uploaded within {self._settings.timeout:g} s; "
                f"cl-powerprop sync {_folder(self._run)} uploads the rest"
            ) from None
        if not self._run.offline:
            Path(self._run.settings.sync_file + UPLOADED).touch()

    def _send_tables(self) -> None:
        import pandas as pd
        import wandb

        folder, media = self._view.folder, {}
        for name in _TABLES:
            path = folder / f"{name}.csv"
            if path.exists():
                table = pd.read_csv(path)
                if name == "accuracy_matrix":
                    table.insert(0, "trained_tasks", range(1, len(table) + 1))
                media[f"tables/{name}"] = wandb.Table(dataframe=table)
        if self._settings.figures:
            for name, image in self._view.figures.images.items():
                media[f"pictures/{name}"] = wandb.Image(image)  # type: ignore[assignment]
        if media:
            self._run.log(media)
        network = folder / "model.safetensors"
        if self._settings.log_model and network.exists():
            metrics = {key: value for key, value in self._view.outcome().metrics.items() if value is not None}
            artifact = wandb.Artifact(f"network-{self._run.id}", type="model", metadata=metrics)
            artifact.add_file(str(network))
            self._run.log_artifact(artifact)

    def abort(self) -> None:
        """Finish the W&B run if its service still answers; otherwise do not wait for it."""
        if not self._hangs:
            self._in_time(self._let_go, network=self._settings.timeout)
        self._thread.shutdown(wait=False)

    def _let_go(self) -> None:
        try:
            self._starting.result().finish(exit_code=1)
        except ConnectionError:
            end_service()


def _folder(run: Any) -> str:
    """Return the folder with the files of a W&B run, for a shell; not in ``dir`` if that cannot be written."""
    folder = Path(run.settings.sync_dir).parent.parent
    return shell_word(os.path.relpath(folder) if folder.is_relative_to(Path.cwd()) else folder)


def _line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
