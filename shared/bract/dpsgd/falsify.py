"""`python -m bract.dpsgd.falsify`: tries to break an objective's privacy declaration; status 1 when it does.

python -m bract.dpsgd.falsify masked-table              an objective of the catalogue
python -m bract.dpsgd.falsify my.module:MyObjective     your own: a class, an instance or a factory
python -m bract.dpsgd.falsify --all --write             every one of the catalogue; renews the certificates

Your own objective is tested on packaged records of its encoder, or on its attribute `example_records`.
"""

import argparse
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import bract
from bract import console
from bract.digest import digest
from bract.dpsgd.falsifier import Report, falsify, pairs_of
from bract.dpsgd.specimen import EncoderName, Specimen, specimen, specimens
from bract.errors import MALFORMED, BractError
from bract.files import write_atomic
from bract.objectives import certificate as certificates
from bract.objectives.certificate import FALSIFIER, Certificate, Source
from bract.objectives.objective import Objective
from bract.objectives.spec import CATALOGUE

_PACKAGE = Path(bract.__file__).parent
_ENGINE = (
    *("canary", "clipper", "draws", "engine", "grouping", "keystream"),
    *("modules", "moments", "noise", "sampler", "scales", "vmap"),
)
_PARTS = ("bract.encoders.", "bract.objectives.")
_VALUES = ("spec", "build", "certificate")


def certify(kind: str) -> tuple[Certificate, list[Report]]:
    """The certificate of an objective of the catalogue, and the falsifier's reports on each encoder that it fits.

    Raises:
        BractError: `malformed` when it broke, declares nothing, or was edited meanwhile: there is no certificate then.
    """
    tested = specimens(kind)
    files = sources(tested)
    reports = [falsify(one.objective, one.records, kind=one.kind) for one in tested]
    if any(report.verdict != "holds" for report in reports):
        raise BractError(MALFORMED, f"{kind}: the falsifier broke it; it gets no certificate")
    if sources(tested) != files:
        raise BractError(MALFORMED, f"{kind}: its files changed while it was tested")
    moments = [report.moment for report in reports if report.moment is not None]
    made = Certificate(
        kind=kind,
        structure=CATALOGUE[kind].structure,
        declared=reports[0].declared,
        measured=round(max(report.measured for report in reports), 4),
        moment=round(max(moments), 4) if moments else None,
        cases=sum(report.tried for report in reports),
        falsifier=FALSIFIER,
        sources=files,
    )
    return made, reports


def sources(tested: list[Specimen]) -> tuple[Source, ...]:
    """The files that a certificate is about: the objective with all of ours that it is made of, and the engine."""
    modules: set[str] = set()
    for one in tested:
        modules |= _modules(one.objective)
    paths = {str(Path(sys.modules[name].__file__ or "").relative_to(_PACKAGE)) for name in modules}
    folder = _PACKAGE / "dpsgd"
    engine = [folder / f"{name}.py" for name in _ENGINE] + sorted((folder / "bookkeeping").glob("*.py"))
    paths |= {str(path.relative_to(_PACKAGE)) for path in engine}
    return tuple(Source(path, digest((_PACKAGE / path).read_bytes())) for path in sorted(paths))


def _modules(objective: Objective) -> set[str]:
    """Names of our modules whose classes and functions an objective uses, theirs too."""
    waiting = {cls.__module__ for part in objective.modules() for cls in type(part).__mro__}
    found: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in found or not name.startswith(_PARTS) or name.rsplit(".", 1)[1] in _VALUES:
            continue
        found.add(name)
        waiting |= {getattr(each, "__module__", None) or "" for each in vars(sys.modules[name]).values()}
        waiting |= {each.__name__ for each in vars(sys.modules[name]).values() if isinstance(each, ModuleType)}
    return found


def main(argv: list[str]) -> int:
    """The command; 1 when an objective broke its declaration."""
    options = _parser().parse_args(argv)
    if options.write and not options.all:
        raise BractError(MALFORMED, "--write goes with --all")
    if options.all == bool(options.objective):
        raise BractError(MALFORMED, "name an objective, or --all")
    if options.write:
        return _write(options.json)
    named = [one for kind in CATALOGUE for one in specimens(kind)] if options.all else []
    tested = named or [specimen(options.objective, options.encoder)]
    reports = [falsify(one.objective, one.records, kind=one.kind) for one in tested]
    _show(reports, options.json)
    return int(any(report.verdict == "broken" for report in reports))


def _write(as_json: bool) -> int:
    made, reports = [], []
    for kind in CATALOGUE:
        one, told = certify(kind)
        made.append(one)
        reports += told
    write_atomic(_PACKAGE / "objectives" / certificates.FILE, certificates.page(made))
    _show(reports, as_json)
    return 0


def _show(reports: list[Report], as_json: bool) -> None:
    if as_json:
        console.emit([_plain(report) for report in reports])
        return
    for report in reports:
        console.out.print(f"{report.kind}: {_VERDICTS[report.verdict]}", soft_wrap=True, markup=False)
        for name, words in pairs_of(report):
            console.out.print(f"  {name:12} {words}", soft_wrap=True, markup=False)


_VERDICTS = {
    "holds": "HOLDS: nothing tried here broke its declaration. This is no proof.",
    "broken": "BROKEN: it does not keep what it declares. Any ε printed for it would be false.",
    "no DP guarantee": "No DP guarantee: it declares no bound.",
}


def _plain(report: Report) -> dict[str, Any]:
    """JSON has no infinity: it becomes null."""
    cases = [asdict(replace(case, movement=min(case.movement, 1e308))) for case in report.worst]
    numbers = {
        name: value if value < float("inf") else None
        for name, value in (("declared", report.declared), ("measured", report.measured))
    }
    return asdict(report) | numbers | {"worst": cases}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bract.dpsgd.falsify", description=__doc__.split("\n")[0])
    parser.add_argument("objective", nargs="?", help="a kind of the catalogue, or MODULE:NAME of your own")
    parser.add_argument("--encoder", choices=get_args(EncoderName), help="whose example records to use")
    parser.add_argument("--all", action="store_true", help="every objective of the catalogue")
    parser.add_argument("--write", action="store_true", help="with --all: renew certificates.json")
    parser.add_argument("--json", action="store_true", help="print JSON for scripts")
    return parser


if __name__ == "__main__":
    console.run(lambda: sys.exit(main(sys.argv[1:])))
