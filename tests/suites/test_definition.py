"""What a suite's file may say, and what is refused with one line."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cl_powerprop.assemble import assemble
from cl_powerprop.composition import compose
from cl_powerprop.errors import ConfigurationError
from cl_powerprop.suites.definition import Method, load_suite, suite_names
from cl_powerprop.suites.overrides import key_of, merged
from cl_powerprop.suites.protocol import Protocol, entries
from cl_powerprop.tuning.defaults import find_defaults
from cl_powerprop.tuning.space import parse_space

SMALL: dict[str, Any] = {
    "title": "small",
    "common": ["data=digits", "benchmark.n_tasks=3", "train.epochs=1"],
    "tuning": {"trials": 2, "seed": 1, "settings": ["benchmark.n_tasks=2"]},
    "seeds": [11, 12],
    "methods": {
        "naive": {"settings": ["strategy=naive"], "space": ["optimizer.lr=interval(0.1,0.5)"]},
        "epn": {"label": "EPN", "settings": ["strategy=epn"], "space": ["strategy.gamma=interval(0.9,0.99)"]},
    },
    "any_budget": {
        "epn": {"settings": ["strategy=epn", "train.epochs=2"], "space": ["strategy.gamma=interval(0.9,0.99)"]}
    },
    "quick": {"common": ["train.epochs=3"], "seeds": [5]},
}


def written(path: Path, **changes: Any) -> str:
    """Write the small suite with other sections, and return the file's name."""
    path.write_text(yaml.safe_dump(SMALL | changes, sort_keys=False), encoding="utf-8")
    return str(path)


def test_a_file_becomes_a_suite(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path / "small.yaml"))
    assert (suite.name, suite.title, suite.seeds) == ("small", "small", (11, 12))
    assert (suite.tuning.trials, suite.tuning.seed, suite.tuning.settings) == (2, 1, ("benchmark.n_tasks=2",))
    assert [*suite.methods] == ["naive", "epn"]
    assert [method.label for method in suite.methods.values()] == ["naive", "EPN"]
    assert suite.any_budget["epn"].settings == ("strategy=epn", "train.epochs=2")
    quick = load_suite(written(tmp_path / "small.yaml"), quick=True)
    assert quick.common == ("data=digits", "benchmark.n_tasks=3", "train.epochs=3")
    assert (quick.seeds, dict(quick.any_budget), quick.tuning) == ((5,), {}, suite.tuning)


def test_the_last_value_of_an_option_holds() -> None:
    words = merged(
        ["data=mnist", "data.size=32", "model.hidden=[1,2]", "seed=1"], ["seed=2", "+data=digits", "~data.size"]
    )
    assert words == ("+data=digits", "model.hidden=[1,2]", "seed=2")


def test_a_method_like_another_says_only_what_is_its_own(tmp_path: Path) -> None:
    first = {
        "label": "EPN",
        "settings": ["strategy=epn", "strategy.gamma=0.9"],
        "space": ["optimizer.lr=interval(1,2)"],
    }
    second = {
        "like": "epn",
        "settings": ["strategy.scope=global", "strategy.gamma=0.8"],
        "tuning": ["strategy.rounds=1"],
    }
    third = {
        "like": "second",
        "label": "third",
        "settings": ["~strategy.scope"],
        "space": ["strategy.gamma=interval(0.8,1)"],
    }
    longer = {"like": "second", "settings": ["train.epochs=7"]}
    methods = {"third": third, "second": second, "epn": first}
    suite = load_suite(written(tmp_path / "small.yaml", methods=methods, any_budget={"second": longer}))
    assert suite.methods["second"] == Method(
        label="second",
        settings=("strategy=epn", "strategy.gamma=0.8", "strategy.scope=global"),
        space=("optimizer.lr=interval(1,2)",),
        tuning=("strategy.rounds=1",),
    )
    assert suite.methods["third"] == Method(
        label="third",
        settings=("strategy=epn", "strategy.gamma=0.8"),
        space=("optimizer.lr=interval(1,2)", "strategy.gamma=interval(0.8,1)"),
        tuning=("strategy.rounds=1",),
    )
    own = suite.methods["second"]
    assert suite.any_budget["second"] == replace(own, settings=(*own.settings, "train.epochs=7"))


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", suite_names())
def test_our_suites_are_sound(name: str, quick: bool) -> None:
    suite = load_suite(name, quick)
    assert suite.tuning.seed not in suite.seeds
    assert len(suite.seeds) == (2 if quick else 3 if "omniglot" in name else 5)
    assert {"naive", "packnet", "epn"} <= {*suite.methods}


@pytest.mark.slow
@pytest.mark.parametrize("name", suite_names())
def test_quick_data_fits_the_network(name: str) -> None:
    suite = load_suite(name, quick=True)
    parts = assemble(compose(merged(suite.common, suite.methods["packnet"].settings)))
    assert parts.n_tasks >= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", suite_names())
def test_what_the_equal_table_has_in_common_is_the_same_for_all(name: str) -> None:
    """The network apart from Powerpropagation, the data and the steps, as the composed configs have them."""
    suite = load_suite(name)
    every = name in ("league/permuted_10", "league/split_5_class")  # for the others, one method of each kind
    found = set()
    for method in suite.methods.values() if every else [suite.methods[name] for name in ("naive", "packnet", "epn")]:
        config = compose(merged(suite.common, method.settings))
        own = ("alpha", "init_scale", "reparam")
        model = {key: value for key, value in vars(config.model).items() if key not in own}
        train = (config.train.epochs, config.train.steps, config.train.batch_size)
        found.add((repr(model), repr(config.benchmark), repr(config.data), train))
    assert len(found) == 1


def refusal(words: Sequence[str]) -> str:
    """Return why no run can have these settings, "" if one can."""
    try:
        compose(words).check()
    except ConfigurationError as error:
        return str(error)
    return ""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["permuted_10", "split_5_class", "omniglot_50", "omniglot_rotation_100"])
def test_each_method_is_refused_or_tuned_from_its_own_settings(name: str) -> None:
    suite, other = load_suite(f"league/{name}"), load_suite("league/permuted_10")
    for entry in entries(suite):
        if name != "permuted_10" and entry.method == other.methods.get(entry.name):
            continue
        own = [*suite.tuning.settings, *entry.method.tuning, "~evaluation.schedule"]  # which tune sets itself
        words = merged(suite.common, entry.method.settings, own)
        if reason := refusal(words):
            assert "scenario" in reason, entry.key
        else:
            assert find_defaults(parse_space([*words, *entry.method.space])), entry.key


@pytest.mark.parametrize("name", suite_names())
def test_memories_are_of_equal_size_once_all_tasks_are_learned(name: str) -> None:
    suite = load_suite(name)
    n_tasks = next(int(word.partition("=")[2]) for word in suite.common if key_of(word) == "benchmark.n_tasks")
    sizes = set()
    for method, of_each_task in [("replay", False), ("derpp", False), ("agem", True), ("gem", True)]:
        words = suite.methods[method].settings
        size = next(int(word.partition("=")[2]) for word in words if key_of(word) == "strategy.mem_size")
        sizes.add(size * n_tasks if of_each_task else size)
    assert sizes == {1000}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": [1, 2]}, "the seed 1 is tuned on and reported"),
        ({"seeds": [2, 2]}, "each once"),
        ({"seeds": []}, "at least one"),
        ({"tuning": {"trials": 0, "seed": 1}}, "tuning.trials must be at least 1"),
        ({"tuning": {"trials": 2}}, "tuning has no seed"),
        ({"tuning": {"trials": True, "seed": 1}}, "True is no whole number"),
        ({"common": ["seed=3"]}, "seed=3: the suite sets seed itself"),
        ({"common": ["strategy.gamma=1"]}, "each method has a strategy of its own"),
        ({"common": ["hydra.job.name=x"]}, "hydra/launcher only"),
        ({"common": ["--help"]}, "OPTION=VALUE"),
        ({"common": "data=mnist"}, "must be a list"),
        ({"colour": 1}, "unknown keys: colour; there are: title, common, tuning"),
        ({"title": None}, "is no text"),
        ({"methods": {"Naive": SMALL["methods"]["naive"]}}, "small letters"),
        ({"methods": {"a": {"settings": ["strategy=naive"]}}}, "has no space"),
        ({"methods": {"a": {"settings": ["strategy=naive"], "space": []}}}, "nothing to tune"),
        ({"methods": {"a": {"settings": [], "space": ["optimizer.lr=1,2"]}}}, "names no strategy"),
        ({"methods": {"a": {"like": "b"}}}, "methods.a: like must name another method, not 'b'"),
        ({"methods": {"a": {"like": "b"}, "b": {"like": "a"}}}, "like must name another method, not 'a'"),
        ({"methods": SMALL["methods"] | {"a": {"like": "b"}}}, "choose from: naive, epn"),
        ({"methods": SMALL["methods"] | {"a": {"like": ["naive"]}}}, "choose from: naive, epn"),
        ({"any_budget": {"epn": {"like": "x"}}}, "any_budget.epn: like must name another method, not 'x'"),
        ({"methods": {"b": {"like": "3"}, 3: SMALL["methods"]["naive"]}}, "like must name another method, not '3'"),
        ({"methods": {"b": {"like": "a"}, "a": 3}}, "like must name another method"),
        ({"methods": 3, "any_budget": {"a": {"like": "a"}}}, "a section with a method a name"),
        ({"based_on": "../x"}, "based_on must name another suite"),
    ],
)
def test_what_is_no_suite_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        load_suite(written(tmp_path / "small.yaml", **changes))
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "word",
    ["train.epochs=9", "train.batch_size=1", "model=lenet5", "model.hidden=[9]", "model.heads=shared", "data=mnist"],
)
@pytest.mark.parametrize("section", ["settings", "space", "tuning"])
def test_a_method_may_not_change_network_data_or_steps(tmp_path: Path, word: str, section: str) -> None:
    method: dict[str, list[str]] = {"settings": ["strategy=naive"], "space": ["optimizer.lr=interval(0.1,0.5)"]}
    method[section] = [*method.get(section, []), word]
    with pytest.raises(ConfigurationError, match=r"not a method's to choose.*it may set: strategy, optimizer"):
        load_suite(written(tmp_path / "small.yaml", methods={"other": method}))


def test_what_does_not_exist_is_named_with_the_choices(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"unknown suite 'league/x'; choose from: .*league/permuted_10"):
        load_suite("league/x")
    with pytest.raises(ConfigurationError, match="no section quick"):
        load_suite(written(tmp_path / "small.yaml", quick=None), quick=True)
    suite = load_suite(written(tmp_path / "small.yaml"))
    with pytest.raises(ConfigurationError, match="small has no method hat, x; choose from: naive, epn"):
        suite.only(["hat", "epn", "x"])
    with pytest.raises(ConfigurationError, match="each method has a strategy"):
        suite.changed(["strategy=epn"])
    assert [*suite.only(["epn"]).methods] == ["epn"]
    assert [*suite.only(["naive"]).any_budget] == []
    assert key_of(suite.changed(["train.epochs=7"]).common[-1]) == "train.epochs"


def test_seeds_that_do_not_follow_one_another_are_not_trained_together(tmp_path: Path) -> None:
    suite = load_suite(written(tmp_path / "small.yaml", seeds=[3, 5]))
    with pytest.raises(ConfigurationError, match="leave --together out"):
        Protocol(suite, tmp_path, [], together=True)
