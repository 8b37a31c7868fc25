"""The auditor's pages: one table a question, made on the server, with nothing that runs in the browser."""

import tempfile
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from urllib.parse import quote, urlencode

from bract.export.tabular import table_of, write_tables
from bract.question import Answer, Question, stamp

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem; color: #1b1f24; }
table { border-collapse: collapse; width: 100%; margin: 1rem 0; }
th, td { border: 1px solid #d0d7de; padding: .3rem .5rem; text-align: left; vertical-align: top; overflow-wrap: anywhere; }
th { background: #f3f5f7; }
.note, .proof { color: #57606a; }
code { font-size: 13px; }
@media print { a { color: inherit; text-decoration: none; } form { display: none; } }
"""


def index(origin: str, questions: Iterable[Question]) -> str:
    """The list of questions."""
    rows = "".join(
        f'<tr><td>{q.number}</td><td><a href="/questions/{q.number}">{escape(q.title)}</a></td>'
        f"<td>{escape(q.where)}</td><td>{escape(q.definition)}</td></tr>"
        for q in questions
    )
    head = "<tr><th>no</th><th>question</th><th>answered by</th><th>computed</th></tr>"
    links = '<p><a href="/v1/log/checkpoint">newest checkpoint</a> · <a href="/v1/openapi.json">OpenAPI</a></p>'
    return _page(f"{origin}: the auditor's questions", f"<table>{head}{rows}</table>{links}")


def answer(told: Answer, given: Mapping[str, str]) -> str:
    """One answer: its table, times, notes, links and proof."""
    pinned = {**given, "as_of": stamp(told.valid_at) or "", "known": stamp(told.known_at) or ""}
    query = escape(urlencode(pinned))
    number = told.number
    parts = [
        '<p><a href="/">all questions</a></p>',
        f"<p>{escape(told.definition)}</p>",
        _times(told, given),
        _table(told),
        *(f'<p class="note">{escape(note)}</p>' for note in told.notes),
        f'<p><a href="/questions/{number}?{query}">permalink</a> · <a href="/v1/questions/{number}?{query}">JSON</a> · '
        f'<a href="/v1/questions/{number}/rows.csv?{query}">CSV</a></p>',
        _proof(told),
    ]
    return _page(f"{number}. {told.title}", "".join(parts))


def csv(told: Answer) -> bytes:
    """The rows as CSV, safe to open in a spreadsheet (`bract.export.tabular`)."""
    with tempfile.TemporaryDirectory(prefix="bract-") as folder:
        target = Path(folder) / "rows.csv"
        write_tables([target], table_of(told.columns, told.rows, told.definition))
        return target.read_bytes()


def _times(told: Answer, given: Mapping[str, str]) -> str:
    hidden = "".join(f'<input type="hidden" name="{escape(k)}" value="{escape(v)}">' for k, v in given.items())
    return (
        f'<form method="get" action="/questions/{told.number}">{hidden}'
        f'<label>valid on <input name="as_of" value="{escape(stamp(told.valid_at) or "")}" size="34"></label> '
        f'<label>known on <input name="known" value="{escape(stamp(told.known_at) or "")}" size="34"></label> '
        "<button>ask</button></form>"
    )


def _table(told: Answer) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in told.columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(column, row.get(column))}</td>" for column in told.columns) + "</tr>"
        for row in told.rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(column: str, value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(_cell(column, one) for one in value)
    if column in ("entry", "entries"):
        return f'<a href="/v1/proofs/{quote(str(value), safe="")}">{escape(str(value))}</a>'
    return escape(str(value))


def _proof(told: Answer) -> str:
    proof = told.proof
    return (
        f'<p class="proof">Log <code>{escape(proof.origin)}</code>, {proof.size} entries, root '
        f"<code>{escape(str(proof.root))}</code>. Answered by {escape(told.answered_by)}; "
        f"{len(proof.entries)} entries cited, each with its proof.</p>"
    )


def _page(title: str, body: str) -> str:
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="stylesheet" href="/style.css"></head>'
        f"<body><h1>{escape(title)}</h1>{body}</body></html>"
    )
