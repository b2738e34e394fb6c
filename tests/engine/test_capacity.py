"""What a cluster can never hold is found by arithmetic, and what it may hold is not refused."""

from __future__ import annotations

import itertools

import pytest

from raymia.engine.on_ray.capacity import Demand, Machine, matches, one_each, shortages

A10G = {"CPU": 8.0, "GPU": 1.0, "accelerator_type:A10G": 1.0}
T4 = {"CPU": 4.0, "GPU": 1.0, "accelerator_type:T4": 1.0}


def demand(name="target", actors=1, most=1, **options):
    return Demand.of(name, actors, most, options)


def cluster(a10g=2, t4=1):
    return [
        Machine("a10g", A10G, {"raymia/pool": "target"}, a10g),
        Machine("t4", T4, {"raymia/pool": "paraphraser"}, t4),
    ]


def test_what_fits_is_not_refused():
    pools = [
        demand("target", 2, num_gpus=1, accelerator_type="A10G"),
        demand("neighbors", 1, num_gpus=1, label_selector={"raymia/pool": "paraphraser"}),
        demand("reference", 3, num_cpus=4),
    ]
    assert shortages(pools, cluster()) == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"num_gpus": 2}, "target needs 2 GPU, and no machine has more than 1 GPU"),
        ({"num_cpus": 9}, "target needs 9 CPU, and no machine has more than 8 CPU"),
        (
            {"num_gpus": 1, "accelerator_type": "H100"},
            "target needs 1 GPU, a GPU of type H100, and no machine has that type "
            "(types here: A10G, T4)",
        ),
        (
            {"num_gpus": 1, "label_selector": {"raymia/pool": "refs"}},
            "target needs 1 GPU, the label raymia/pool: refs, and no machine has it "
            "(labels raymia/pool here: paraphraser, target)",
        ),
        (
            {"resources": {"big": 1}},
            "target needs 1 big, and no machine has more than 0 big",
        ),
        (
            {"num_cpus": 8, "accelerator_type": "T4"},
            "target needs 8 CPU, a GPU of type T4, and no machine has all of it",
        ),
        (
            {"actors": 3, "num_gpus": 1, "accelerator_type": "A10G"},
            "target needs 3 actors with 1 GPU, a GPU of type A10G each, and there is room for 2",
        ),
    ],
)
def test_what_is_missing_is_named(asked, said):
    assert shortages([demand(**asked)], cluster()) == [said]


def test_pools_that_run_together_are_counted_together():
    pools = [demand("target", 2, num_gpus=1), demand("reference", 2, num_gpus=1)]
    assert [shortages([pool], cluster()) for pool in pools] == [[], []]
    assert shortages(pools, cluster()) == [
        "target and reference run at the same time and need 4 GPU together, and there are 3"
    ]
    assert shortages(one_each(pools), cluster()) == []


def test_machines_of_another_kind_are_no_help_to_pools_that_run_together():
    pools = [
        demand("target", 2, num_gpus=1, accelerator_type="A10G"),
        demand("reference", 1, num_gpus=1, accelerator_type="A10G"),
        demand("neighbors", 1, num_gpus=1, accelerator_type="T4"),
    ]
    (line,) = shortages(pools, cluster())
    assert line == (
        "target and reference run at the same time and need 3 GPU together, and there are 2"
    )


def test_a_share_of_a_gpu_is_of_one_gpu():
    machine = Machine("four", {"GPU": 4.0}, {})
    assert machine.fits(demand(num_gpus=0.6)) == 4  # and not 4 / 0.6
    assert machine.fits(demand(num_gpus=0.5)) == 8
    assert machine.fits(demand(num_gpus=1 / 3)) == 12
    assert machine.fits(demand(num_gpus=2)) == 2


def test_nothing_that_can_be_packed_is_ever_refused():
    """Against every way to put up to three pools of small actors on two machines."""
    machines = [Machine("a", {"CPU": 2.0, "GPU": 1.0}, {}), Machine("b", {"CPU": 1.0}, {})]
    kinds = [{"num_cpus": 1}, {"num_cpus": 2}, {"num_gpus": 1}, {"num_cpus": 1, "num_gpus": 1}]
    refused = 0
    for some in itertools.combinations_with_replacement(kinds, 3):
        demands = [demand(str(n), **options) for n, options in enumerate(some)]
        packed = any(
            all(
                sum(d.resources.get(r, 0) for d, at in zip(demands, places, strict=True) if at == n)
                <= machine.resources.get(r, 0)
                for n, machine in enumerate(machines)
                for r in ("CPU", "GPU")
            )
            for places in itertools.product(range(2), repeat=3)
        )
        lines = shortages(demands, machines)
        assert not (packed and lines), (some, lines)
        refused += bool(lines)
    assert refused > 5


@pytest.mark.parametrize(
    ("value", "wanted", "is_met"),
    [
        ("a", "a", True), ("b", "a", False), (None, "a", False),
        ("b", "!a", True), ("a", "!a", False), (None, "!a", True),
        ("b", "in(a, b)", True), ("c", "in(a,b)", False), ("a", "!in(a,b)", False),
        ("c", "!in(a,b)", True),
    ],
)  # fmt: skip
def test_label_selectors_are_read_as_ray_reads_them(value, wanted, is_met):
    assert matches(value, wanted) is is_met
