"""Members are drawn at random, and what belongs together stays together."""

from __future__ import annotations

import json

import pytest
from tiny_models import passages

from raymia.prepare.text_split import Record, draw_halves, draw_members, written
from raymia.spec.target_training import SplitSpec
from raymia.util.errors import InputError

TEXTS = passages(40)
DRAWN_OF_12 = ["000", "002", "003", "007", "008", "011"]


def draw(texts=TEXTS, groups=None, seed=0, **spec):
    groups = groups or [None] * len(texts)
    records = [Record(f"{n:03}", t, g) for n, (t, g) in enumerate(zip(texts, groups, strict=True))]
    return draw_members(records, texts, SplitSpec(**spec), seed)


def ids(records):
    return {record.id for record in records}


def test_each_record_is_on_one_side_and_the_share_is_kept():
    split = draw(members=0.25)
    assert (len(split.members), len(split.held_out)) == (10, 30)
    assert not ids(split.members) & ids(split.held_out)
    assert {r.group for r in (*split.members, *split.held_out)} == {None}


def test_which_is_where_is_a_function_of_the_seed_and_not_of_the_order():
    assert draw() == draw()
    assert ids(draw(seed=1).members) != ids(draw().members)
    records = [Record(f"{n:03}", text) for n, text in enumerate(TEXTS)]
    turned = draw_members(records[::-1], TEXTS[::-1], SplitSpec(), 0)
    assert turned == draw()


def test_over_many_seeds_each_record_is_as_often_a_member_as_another():
    times = {f"{n:03}": 0 for n in range(12)}
    for seed in range(200):
        for one in draw(TEXTS[:12], seed=seed).members:
            times[one.id] += 1
    assert all(70 < count < 130 for count in times.values()), times  # 4.2 standard deviations


@pytest.mark.parametrize(("share", "chance"), [(0.5, 0.5), (1 / 3, 1 / 3)])
def test_over_many_seeds_a_large_group_is_as_often_a_member_as_a_record_alone(share, chance):
    groups = ["a"] * 4 + ["b"] * 2 + [None] * 6
    times = {f"{n:03}": 0 for n in range(12)}
    for seed in range(600):
        split = draw(TEXTS[:12], groups, seed, members=share, near_repetitions="apart")
        for one in split.members:
            times[one.id] += 1
    spread = 4.2 * (600 * chance * (1 - chance)) ** 0.5
    assert all(abs(count - 600 * chance) < spread for count in times.values()), times


def test_more_that_belong_together_than_one_side_takes_are_refused():
    groups = ["a"] * 21 + [None] * 19
    with pytest.raises(InputError, match=r"split: 21 of 40 records belong together.* takes 20;"):
        draw(groups=groups)
    assert draw(groups=groups, inclusion="randomized").members


def test_records_alone_are_drawn_as_they_always_were():
    """So that a training that is finished is found again."""
    assert sorted(ids(draw(TEXTS[:12]).members)) == DRAWN_OF_12


@pytest.mark.parametrize("seed", range(8))
def test_groups_and_near_repetitions_stay_together(seed):
    again = TEXTS[0].rsplit(" ", 1)[0] + " again"  # nearly the first, which is of group a
    texts = [*TEXTS[:20], again]
    groups = ["a", "a", "b", "b", "b", *[None] * 16]
    split = draw(texts, groups, seed)
    inside = ids(split.members)
    for unit in ({"000", "001", "020"}, {"002", "003", "004"}):
        assert unit <= inside or not unit & inside
    assert split.near_repetitions == 2
    named = {r.id: r.group for r in (*split.members, *split.held_out)}
    assert (named["000"], named["020"], named["002"], named["005"]) == ("a", "a", "b", None)


def test_near_repetitions_may_be_drawn_apart():
    again = TEXTS[0].rsplit(" ", 1)[0] + " again"
    sides = set()
    for seed in range(20):
        split = draw([TEXTS[0], again, *TEXTS[1:6]], seed=seed, near_repetitions="apart")
        sides.add({"000", "001"} <= ids(split.members) or not {"000", "001"} & ids(split.members))
        assert split.near_repetitions == 0
    assert sides == {True, False}


def test_coins_are_tossed_for_each_by_itself():
    sizes = {len(draw(seed=seed, inclusion="randomized").members) for seed in range(12)}
    assert len(sizes) > 3


@pytest.mark.parametrize(
    ("groups", "spec"), [(["a"] * 40, {}), (None, {"members": 0.001}), (None, {"members": 0.999})]
)
def test_a_side_without_records_is_refused(groups, spec):
    with pytest.raises(InputError, match="some must be, and some held out"):
        draw(groups=groups, **spec)


def test_records_are_written_as_they_were_given():
    chat = json.dumps({"messages": [{"role": "user", "content": "ä"}]}, ensure_ascii=False)
    lines = written([Record("1", chat, "g")], "chat", grouped=True).decode().splitlines()
    assert json.loads(lines[0]) == {**json.loads(chat), "group": "g"}
    (line,) = written([Record("1", "a\nb")], "text", grouped=False).decode().splitlines()
    assert json.loads(line) == {"text": "a\nb"}


# ------------------------------------------------------------------------------ shadows


def of(split):
    return {record.id for record in split.members}


@pytest.mark.parametrize("count", [2, 8])
def test_each_record_is_in_half_of_the_shadows_and_each_shadow_has_half(count):
    records = [Record(f"{n:03}", text) for n, text in enumerate(TEXTS)]
    halves = draw_halves(records, count, 0)
    assert [len(half.members) for half in halves] == [20] * count
    assert all(of(half) | {r.id for r in half.held_out} == {r.id for r in records}
               for half in halves)  # fmt: skip
    for record in records:
        assert sum(record.id in of(half) for half in halves) == count // 2
    assert draw_halves(records[::-1], count, 0) == halves
    assert draw_halves(records, count + 2, 0)[:count] == halves
    assert len({frozenset(of(half)) for half in halves}) == count


def test_over_many_shadows_two_records_are_together_as_often_as_apart():
    records = [Record(f"{n:03}", text) for n, text in enumerate(TEXTS[:12])]
    halves = draw_halves(records, 800, 3)
    for other in ("001", "007", "011"):
        together = sum(("000" in of(half)) == (other in of(half)) for half in halves)
        assert abs(together / 800 - 5 / 11) < 0.08  # 4 standard deviations of 400 pairs are 0.1


def test_a_group_is_on_one_side_of_every_shadow():
    records = [Record(f"{n:03}", text, "g" if n % 3 == 0 else None) for n, text in enumerate(TEXTS)]
    group = {record.id for record in records if record.group}
    for half in draw_halves(records, 6, 0):
        assert group <= of(half) or not group & of(half)


def test_one_group_alone_has_no_half():
    with pytest.raises(InputError, match="shadows: of 4 records in 1 groups no half"):
        draw_halves([Record(str(n), "t", "g") for n in range(4)], 2, 0)


def test_near_repetitions_and_what_is_in_their_groups_are_on_one_side_of_every_shadow():
    records = [
        Record(f"{n:03}", text, "g" if n in (1, 2) else None) for n, text in enumerate(TEXTS)
    ]
    unit = {"001", "002", "009"}
    for half in draw_halves(records, 6, 0, [["001", "009"]]):
        assert unit <= of(half) or not unit & of(half)


def test_more_than_a_half_that_belongs_together_has_no_shadows():
    records = [Record(f"{n:03}", text) for n, text in enumerate(TEXTS)]
    alike = [f"{n:03}" for n in range(21)]
    with pytest.raises(InputError, match="shadows: 21 of 40 records belong together"):
        draw_halves(records, 2, 0, [alike])
    draw_halves(records, 2, 0, [alike[:19]])


def test_half_of_the_records_in_one_group_would_be_the_same_half_in_all_pairs():
    pool = [Record(f"r{n:02}", "", "one" if n < 10 else None) for n in range(20)]
    with pytest.raises(InputError, match="10 of 20 records belong together"):
        draw_halves(pool, 4, 0)
    halves = draw_halves([one for one in pool if one.id != "r00"], 4, 0)
    assert len({tuple(one.id for one in half.members) for half in halves}) > 2
