"""Markdown in which foreign text stays text: no markup, no HTML, no line of its own."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MISSING = "not recorded"
"""What stands where the registry has nothing. Nothing is guessed."""

_MARKUP = re.compile(
    r"[\\`*_\[\]#|~$@]"  # emphasis, code, links, headings, cells, mentions
    r"|:(?=//)|(?<=www)\."  # addresses that some renderers make links of
    r"|^[-+=](?=\s|[-+=]|$)|(?<=^\d)[.)]|(?<=^\d\d)[.)]",  # lists and rules at the beginning
    re.IGNORECASE,
)


def text(value: object) -> str:
    """Foreign text as one line without meaning to a renderer [CommonMark §2.4, §2.5]; `MISSING` for nothing."""
    if value is None or value == "":
        return MISSING
    line = " ".join(str(value).split())
    visible = "".join(character if character.isprintable() else "\ufffd" for character in line)
    return _MARKUP.sub(r"\\\g<0>", visible.replace("&", "&amp;")).replace("<", "&lt;").replace(">", "&gt;")


def code(value: object) -> str:
    """Foreign text as a code span: digests, names of machines. What could end the span or a cell is not shown."""
    if value is None or value == "":
        return MISSING
    line = "".join(
        character if character.isprintable() and character not in "`|<" else "\ufffd" for character in str(value)
    )
    return f"`{line}`"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of cells that are Markdown already; `MISSING` without rows."""
    lines = [f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows)]
    return "\n".join(lines) if len(lines) > 2 else MISSING


def front_matter(values: Mapping[str, Any]) -> str:
    """YAML front matter, ASCII only; no text can end it."""
    return "\n".join(["---", *(f"{key}: {_yaml(value)}" for key, value in values.items()), "---"])


def _yaml(value: Any) -> str:
    """A value in YAML's flow style [YAML 1.2.2 §7.3.1 and §7.4.1]."""
    if isinstance(value, list):
        return f"[{', '.join(map(_yaml, value))}]"
    if not isinstance(value, str):
        return json.dumps(value)
    safe = "".join(one if " " <= one <= "~" and one not in '"\\<' else f"\\U{ord(one):08x}" for one in value)
    return f'"{safe}"'


def page(*parts: str) -> bytes:
    """Parts with an empty line between them."""
    return ("\n\n".join(parts) + "\n").encode()
