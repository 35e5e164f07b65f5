"""A copy of an Avalanche benchmark with other data sets in its experiences, and nothing else changed.

Plugins, metrics and loggers read the benchmark, its streams and its experiences by many names, which differ between
the two kinds of benchmarks that Avalanche has. Copies keep them all, where a new benchmark would have some of them.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from copy import copy
from dataclasses import replace
from typing import Any

from avalanche.benchmarks.scenarios.deprecated.dataset_scenario import FactoryBasedStream
from avalanche.benchmarks.scenarios.generic_scenario import CLScenario, CLStream, EagerCLStream, SequenceCLStream
from avalanche.benchmarks.scenarios.supervised import with_classes_timeline
from avalanche.benchmarks.utils.data import AvalancheDataset

Datasets = Sequence[AvalancheDataset[Any]]


def with_datasets(benchmark: CLScenario[Any], datasets: Mapping[str, Datasets]) -> CLScenario[Any]:
    """Return a copy of a benchmark whose experiences have the given data sets.

    Streams that generate their experiences become streams that hold them. The original stays as it is.

    Args:
        benchmark: any benchmark whose experiences have data sets.
        datasets: by the name of each stream, the data sets of its experiences in order.
    """
    copies = _Copies()
    result = copies.of(benchmark)
    for name, stream in benchmark.streams.items():
        # A stream may come from another benchmark, as the test stream of `benchmark_with_validation_stream` does.
        owner = result if stream.benchmark is None else copies.of(stream.benchmark)
        build = _made_on_demand if isinstance(stream, FactoryBasedStream) else _held
        built = build(stream, datasets[name], owner, copies)
        if owner is not result:
            _set_stream(owner, _whole(built))
        _set_stream(result, built)
    describe_classes(result)
    return result


def _set_stream(benchmark: CLScenario[Any], stream: CLStream[Any]) -> None:
    benchmark._streams[stream.name] = stream
    setattr(benchmark, f"{stream.name}_stream", stream)


def _whole(stream: SequenceCLStream[Any]) -> SequenceCLStream[Any]:
    """Return the stream that a stream is a slice of."""
    whole = copy(stream)
    whole.slice_ids, whole.exps_iter = None, whole
    return whole


class _Copies:
    """Gives the one copy of each benchmark."""

    def __init__(self) -> None:
        self._made: dict[int, CLScenario[Any]] = {}

    def of(self, benchmark: CLScenario[Any]) -> CLScenario[Any]:
        if id(benchmark) not in self._made:
            made = self._made[id(benchmark)] = copy(benchmark)
            made._streams = dict(benchmark._streams)
            if hasattr(benchmark, "stream_definitions"):
                made.stream_definitions = dict(benchmark.stream_definitions)
        return self._made[id(benchmark)]


def _made_on_demand(
    stream: FactoryBasedStream[Any], datasets: Datasets, owner: CLScenario[Any], copies: _Copies
) -> FactoryBasedStream[Any]:
    """Copy a stream of the older kind: it makes experiences, from its benchmark's definition, when they are taken."""
    definition = owner.stream_definitions[stream.name]
    data = copy(definition.exps_data)
    data._loaded_experiences = {**data._loaded_experiences, **dict(zip(_positions(stream), datasets, strict=True))}
    # All labels are read each time an experience is taken, only to find its classes: one of each is enough.
    distinct = {index: list(dict.fromkeys(labels)) for index, labels in data.targets_field_sequence.items()}
    data.targets_field_sequence = data.targets_field_sequence.copy()
    data.targets_field_sequence.update(distinct)
    owner.stream_definitions[stream.name] = replace(definition, exps_data=data)
    built = copy(stream)
    built.benchmark, built.exps_iter = owner, built
    return built


def _held(stream: CLStream[Any], datasets: Datasets, owner: CLScenario[Any], copies: _Copies) -> EagerCLStream[Any]:
    """Copy a stream of the newer kind, and its experiences."""
    experiences = [copy(experience) for experience in stream]
    for experience, dataset in zip(experiences, datasets, strict=True):
        experience._dataset = dataset
    if not all(hasattr(experience, "classes_in_this_experience") for experience in experiences):
        experiences = list(with_classes_timeline(EagerCLStream(stream.name, experiences)))
    list_classes(experiences)
    if isinstance(stream, EagerCLStream):
        built = copy(stream)
        built._exps = list(stream._exps)
        for position, experience in zip(_positions(stream), experiences, strict=True):
            built._exps[position] = experience
        built.exps_iter = built
    else:
        built = EagerCLStream(stream.name, experiences, set_stream_info=False)
    built.benchmark = owner
    for experience in experiences:
        experience.origin_stream = built
        original = getattr(experience, "benchmark", None)
        experience.benchmark = owner if original is None else copies.of(original)
    return built


def _positions(stream: CLStream[Any]) -> Sequence[int]:
    """Return where the experiences of a stream, which may be a slice, are in the whole stream."""
    return range(len(stream)) if stream.slice_ids is None else stream.slice_ids


def list_classes(experiences: Iterable[Any]) -> None:
    """List each experience's classes; Avalanche may have a set, which its own MultiHeadClassifier cannot index."""
    for experience in experiences:
        if isinstance(experience.classes_in_this_experience, Set):
            experience.classes_in_this_experience = sorted(experience.classes_in_this_experience)


def describe_classes(benchmark: CLScenario[Any]) -> None:
    """Add what iCaRL and others read of benchmarks of Avalanche's older kind, where a benchmark does not have it."""
    if "train" not in benchmark.streams:
        return
    classes = [experience.classes_in_this_experience for experience in benchmark.streams["train"]]
    order = [label for each in classes for label in each]
    facts = {
        "n_classes": len(set(order)),
        "n_classes_per_exp": [len(each) for each in classes],
        "classes_order": order,
    }
    for name, value in facts.items():
        if not hasattr(benchmark, name):
            setattr(benchmark, name, value)
