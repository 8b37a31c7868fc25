"""What consent still allows of what was made from the data: the rule as a truth table, and narrowing for all inputs."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bract.errors import OFF_PURPOSE, BractError
from bract.use import COVERED, EVERY, NONE, TAKES, allowed, check_terms, narrowed, shown, without
from bract.vocabulary.modifiers import MODIFIERS, Modifier
from bract.vocabulary.purposes import Purpose

PRE, FINE, DIST, EVAL = Purpose.PRETRAINING, Purpose.FINETUNING, Purpose.DISTILLATION, Purpose.EVALUATION
INSIDE, PUBLIC = Purpose.RELEASE_INTERNAL, Purpose.RELEASE_PUBLIC
NMDS, NPU, NCU = Modifier("DUO:0000015"), Modifier("DUO:0000045"), Modifier("DUO:0000046")
REGION = Modifier("DUO:0000022", ("CH", "DE"))
NOW = datetime(2026, 11, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    ("consented", "declared", "modifiers", "expected"),
    [
        # by default: the purpose itself, judging what it made, use inside the study
        ([PRE], [], [], {PRE, EVAL, INSIDE}),
        ([FINE], [], [], {FINE, EVAL, INSIDE}),
        ([DIST], [], [], {DIST, EVAL, INSIDE}),
        ([EVAL], [], [], {EVAL}),
        # fine-tuning or distilling an encoder is a further use of the data in it, and publishing it another
        ([PRE], [FINE], [], {PRE, EVAL, INSIDE, FINE}),
        ([PRE], [FINE, DIST, PUBLIC], [], set(Purpose)),
        ([PRE, FINE], [], [], {PRE, FINE, EVAL, INSIDE}),
        # silence is no: a declaration without any clearance allows nothing
        ([], [], [], set()),
        ([], [PUBLIC], [], set()),
        # a purpose that is none of ours covers nothing
        (["DUO:0000042"], [], [], set()),
        # modifiers take away, also what was declared
        ([PRE], [], [NMDS], {EVAL, INSIDE}),
        ([FINE], [DIST], [NMDS], {FINE, EVAL, INSIDE}),
        ([PRE], [PUBLIC], [NPU], {PRE, EVAL, INSIDE}),
        ([PRE], [PUBLIC], [NCU], {PRE, EVAL, INSIDE}),
        ([PRE], [PUBLIC], [Modifier("DUO:0000018")], {PRE, EVAL, INSIDE}),
        # or go along and take nothing by themselves
        ([PRE], [PUBLIC], [REGION], {PRE, EVAL, INSIDE, PUBLIC}),
        ([PRE], [PUBLIC], [Modifier("DUO:9999999")], {PRE, EVAL, INSIDE, PUBLIC}),
    ],
)
def test_what_a_snapshot_allows(
    consented: list[str], declared: list[Purpose], modifiers: list[Modifier], expected: set[Purpose]
) -> None:
    assert allowed(consented, declared, modifiers) == expected


@pytest.mark.parametrize(
    ("purpose", "modifiers", "forbidden"),
    [
        (PRE, [], False),
        (PRE, [REGION, NPU, Modifier("DUO:9999999")], False),
        (PRE, [REGION, NMDS], True),
        (DIST, [NMDS], True),
        (FINE, [NMDS], False),
        (FINE, [Modifier("DUO:0000025", ("2026-11-23T00:00:00+00:00",))], True),
        (FINE, [Modifier("DUO:0000025", ("2026-11-23T00:00:01+00:00",))], False),
    ],
)
def test_terms_forbid_what_their_conditions_take_away(
    purpose: Purpose, modifiers: list[Modifier], forbidden: bool
) -> None:
    if not forbidden:
        check_terms(purpose, modifiers, NOW)
        return
    with pytest.raises(BractError) as refusal:
        check_terms(purpose, modifiers, NOW)
    assert refusal.value.code == OFF_PURPOSE


def test_every_purpose_of_training_has_its_row() -> None:
    assert set(COVERED) == {PRE, FINE, DIST, EVAL}
    assert all(purpose in covered for purpose, covered in COVERED.items())
    assert set(TAKES) <= {one.code for one in MODIFIERS}


uses = st.frozensets(st.sampled_from(list(Purpose)))
modifiers = st.lists(st.sampled_from([NMDS, NPU, NCU, REGION]))


@given(st.lists(uses), uses)
def test_another_parent_only_narrows(parents: list[frozenset[Purpose]], another: frozenset[Purpose]) -> None:
    together = narrowed([*parents, another])
    assert together <= another
    assert not parents or together <= narrowed(parents)
    assert all(together <= parent for parent in parents)


@given(uses, modifiers, st.sampled_from([NMDS, NPU, NCU, REGION]))
def test_another_modifier_only_narrows(before: frozenset[Purpose], held: list[Modifier], more: Modifier) -> None:
    assert without(before, [*held, more]) <= without(before, held) <= before


def test_what_comes_from_nowhere_allows_nothing() -> None:
    assert narrowed([]) == NONE
    assert narrowed([EVERY]) == EVERY


def test_a_modifier_is_told_with_what_it_names() -> None:
    assert (shown(REGION), shown(NMDS)) == ("DUO:0000022=CH,DE", "DUO:0000015")
