"""The pinned vocabulary: what it covers, and that it is what it cites."""

import re

import pytest

from bract.errors import MALFORMED, BractError
from bract.vocabulary.legal import BASES, legal_basis
from bract.vocabulary.modifiers import MODIFIERS, modifier
from bract.vocabulary.purposes import TERMS, Purpose, Scheme, ancestors, closure, known, named, term, uses


def covered(code: str) -> set[str]:
    """Everything above a purpose, found by walking its parents."""
    found, todo = {code}, [code]
    while todo:
        for parent in term(todo.pop()).parents:
            if parent not in found:
                found.add(parent)
                todo.append(parent)
    return found


def test_the_closure_is_what_the_parent_links_say() -> None:
    rows = closure()
    assert len({(above, below) for above, below, _ in rows}) == len(rows)
    for one in TERMS:
        assert {above for above, below, _ in rows if below == one.code} == covered(one.code) == ancestors(one.code)
        assert {above for above, below, depth in rows if below == one.code and depth == 1} == set(one.parents)
        assert (one.code, one.code, 0) in rows


def test_every_purpose_lies_under_the_one_root_and_every_use_is_a_leaf() -> None:
    assert [one.code for one in TERMS if not one.parents] == ["any-use"]
    parents = {parent for one in TERMS for parent in one.parents}
    assert not parents & set(Purpose) and {one.value for one in Purpose} <= {one.code for one in TERMS}
    assert uses("any-use") == frozenset(Purpose)


def test_research_does_not_cover_handing_an_encoder_on() -> None:
    study = {Purpose.PRETRAINING, Purpose.FINETUNING, Purpose.DISTILLATION, Purpose.EVALUATION}
    for code in ("research", "DUO:0000042", "DUO:0000007", "dpv:ResearchAndDevelopment", "dpv:ScientificResearch"):
        assert uses(code) == study
    assert uses("release") == set(Purpose) - study
    assert uses("DUO:0000004") == set(Purpose)


def test_names_are_those_of_the_schemes_that_they_cite() -> None:
    shapes = {
        Scheme.DUO: (r"DUO:\d{7}", r"http://purl\.obolibrary\.org/obo/DUO_\d{7}"),
        Scheme.DPV: (r"dpv:[A-Z]\w+", r"https://w3id\.org/dpv#[A-Z]\w+"),
        Scheme.LOCAL: (r"[a-z-]+", r"urn:bract:purpose:[a-z-]+"),
    }
    for one in TERMS:
        code, iri = shapes[one.scheme]
        assert re.fullmatch(code, one.code) and re.fullmatch(iri, one.iri) and len(one.code) <= 32
    assert len({one.iri for one in TERMS}) == len(TERMS)
    assert len({one.code for one in MODIFIERS}) == len({one.short for one in MODIFIERS}) == len(MODIFIERS)
    assert legal_basis("eu-gdpr:A6-1-a").iri == "https://w3id.org/dpv/legal/eu/gdpr#A6-1-a"
    assert legal_basis("dpv:Consent").iri == "https://w3id.org/dpv#Consent"
    assert all(len(one.code) <= 64 for one in BASES)


def test_a_use_is_named_as_one() -> None:
    assert named("evaluation") is Purpose.EVALUATION
    assert named("DUO:0000042") == "DUO:0000042"
    assert known("research") and not known("marketing")


@pytest.mark.parametrize(
    ("code", "values"),
    [
        ("DUO:0000022", []),
        ("DUO:0000015", ["CH"]),
        ("DUO:9", []),
        ("DUO:0000025", ["soon"]),
        ("DUO:0000025", ["2026-01-01"]),
        ("DUO:0000025", ["2026-01-01T00:00:00Z", "2027-01-01T00:00:00Z"]),
        ("DUO:0000026", ["n" * 129]),
    ],
)
def test_a_condition_that_cannot_be_judged_is_refused(code: str, values: list[str]) -> None:
    with pytest.raises(BractError) as caught:
        modifier(code, values)
    assert caught.value.code == MALFORMED
    assert modifier("DUO:0000022", ["DE", "CH", "CH"]).values == ("CH", "DE")


def test_what_the_vocabulary_does_not_have_is_refused() -> None:
    for look in (term, named, ancestors, uses, legal_basis):
        with pytest.raises(BractError) as caught:
            look("nonsense")
        assert caught.value.code == MALFORMED
