"""Pages have our headings and nobody else's: foreign text stays text in Markdown and in its front matter."""

import itertools
import re

import yaml
from hypothesis import given, settings

from bract.export.aiact import annex_iv, training_content
from bract.export.card import card
from bract.export.facts import Facts
from bract.model import Lineage, Node, NodeKind
from tests.shared.export import graphs
from tests.shared.export.graphs import AT, HOSTILE

few = settings(max_examples=40, deadline=None)


@few
@given(graphs.facts())
def test_pages_have_our_headings_only_and_a_front_matter_that_yaml_reads(facts: Facts) -> None:
    for make in (card, annex_iv, training_content):
        page = make(facts).decode()
        assert make(facts).decode() == page
        assert "<" not in page
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]", page)
        lines = page.rpartition("\n---\n")[2].split("\n")
        for line in lines:
            # no address, link or image: what looks like one has a backslash or stands in code
            outside = re.sub(r"`[^`]*`", "", line)
            assert not re.search(r"(?<!\\)(?:[\[\]@]|://)", outside)
        for before, after in itertools.pairwise(lines):
            if before.startswith("|") and after.startswith("|"):
                assert len(re.findall(r"(?<!\\)\|", before)) == len(re.findall(r"(?<!\\)\|", after))
    front = card(facts).decode().split("\n---\n")[0].removeprefix("---\n")
    read = yaml.safe_load(front)
    assert read["model_name"] == facts.subject.name
    assert read["bract_ref"] == facts.subject.ref


def test_headings_of_a_hostile_model_are_those_of_any_model() -> None:
    pages = set()
    for name in HOSTILE:
        node = Node(NodeKind.VERSION, name, name, AT, {"site": name, "url": name}, (), ())
        facts = Facts(name, AT, Lineage((node,), ()), (node.kind, node.ref))
        for make in (card, annex_iv, training_content):
            heads = [line for line in make(facts).decode().split("\n") if re.match(r" {0,3}#", line)]
            pages.add((make.__name__, len(heads)))
    assert len(pages) == 3
