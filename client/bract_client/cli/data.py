"""`bract-site data` and `bract-site consent`: data sets, and what people decided about them."""

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from bract import console
from bract.consent import Purpose
from bract.digest import digest_file
from bract.errors import MALFORMED, BractError
from bract.retention import RetentionRule
from bract.use import shown
from bract.value import utc
from bract.vocabulary.modifiers import Modifier, modifier
from bract_client.cli.options import AsJson, SiteFolder, now
from bract_client.home import open_home
from bract_client.registry.imports import ImportReport
from bract_client.registry.members import IngestReport
from bract_client.registry.store import SiteRegistry
from bract_client.site import open_registry
from bract_client.sources.consent_mapping import ConsentMapping, load_mapping
from bract_client.sources.location import AnyLocation, FilesLocation, ImagesLocation, TableLocation

app = typer.Typer(
    help="The site's data sets; nothing of them ever leaves.", no_args_is_help=True, rich_markup_mode=None
)
_SHOWN = 20
"""Lines that are shown one by one to people."""

consent = typer.Typer(help="What people decided.", no_args_is_help=True, rich_markup_mode=None)


@app.command()
def add(
    name: Annotated[str, typer.Argument(help="The data set's name, the one that campaigns use.")],
    table: Annotated[Path | None, typer.Option(help="A Parquet file of one row a record.")] = None,
    schema: Annotated[str, typer.Option(help="The public schema of the table's columns.")] = "adult",
    images: Annotated[Path | None, typer.Option(help="A folder of PNG files with a manifest.csv.")] = None,
    shape: Annotated[str, typer.Option(help="Channels, height and width of the images.")] = "1x28x28",
    files: Annotated[
        Path | None, typer.Option(help="A folder of files of any kind with a manifest.csv or manifest.jsonl.")
    ] = None,
    decisions: Annotated[
        Path | None, typer.Option(help="A file of people's decisions, as for `consent import`.")
    ] = None,
    mapping: Annotated[Path | None, typer.Option(help="What those decisions' columns and codes mean.")] = None,
    retention_days: Annotated[
        int | None, typer.Option(help="Days after collection for which records may be used.")
    ] = None,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Register a data set and take in its records: identifiers become keyed handles at the door."""
    home = open_home(site)
    settings = home.settings()
    registry = open_registry(home)
    used = _mapping(mapping)
    registry.add_dataset(
        name,
        _location(table, schema, images, shape, files),
        retention=RetentionRule(retention_days),
        subjects_floor=settings.subjects_floor,
        epsilon_cap=settings.policy.cap(name),
        delta=settings.policy.max_delta,
        at=now(),
    )
    taken = _ingested(registry, name)
    decided = None if decisions is None else _imported(registry, decisions, used, fhir=None)
    _show_ingest(taken, decided, as_json)


@app.command()
def ingest(name: str, site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """Read a data set again: new records are taken, vanished ones removed, the rest is left as it is."""
    _show_ingest(_ingested(open_registry(open_home(site)), name), None, as_json)


@app.command()
def admission(
    name: str,
    purpose: Annotated[Purpose, typer.Option(help="What the data would be used for.")] = Purpose.PRETRAINING,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Who may be used now, and how many are refused for which reason. For the steward's eyes: it stays here."""
    report = open_registry(open_home(site)).admission(name, purpose, now())
    refused = {str(reason): count for reason, count in report.refused.items()}
    if as_json:
        console.emit({"subjects": report.admitted_subjects, "records": report.admitted_records, "refused": refused})
        return
    console.out.print(
        f"{report.admitted_subjects} subjects, {report.admitted_records} records may be used for {purpose}"
    )
    console.out.print(console.table("refused", ("reason", "records"), sorted(refused.items())))


@app.command()
def terms(
    name: str,
    document: Annotated[Path, typer.Option(help="The notice or agreement that says so; only its digest is kept.")],
    declare: Annotated[list[Purpose] | None, typer.Option(help="A further use that the notice named; repeat.")] = None,
    modifiers: Annotated[
        list[str] | None,
        typer.Option("--modifier", help="A condition that it named, a DUO code or CODE=VALUE; some forbid. Repeat."),
    ] = None,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Declare, signed by this site, what a data set may be used for beyond its people's consents, and what not.

    It takes the place of what was declared before; the running site tells the hub.
    """
    conditions = [_condition(one) for one in modifiers or ()]
    try:
        notice = digest_file(document)
    except OSError as error:
        raise BractError(MALFORMED, f"{document.name}: no file that can be read") from error
    envelope = open_registry(open_home(site)).declare(name, declare or (), conditions, notice, now())
    if as_json:
        console.emit({"terms": envelope.name, "dataset": name})
        return
    console.out.print(f"Declared for {name}: {envelope.name}. The running site tells the hub.")


@app.command("list")
def list_datasets(site: SiteFolder = Path(), as_json: AsJson = False) -> None:
    """The site's data sets, and what was declared about them."""
    registry = open_registry(open_home(site))
    told: list[dict[str, Any]] = [
        {
            "name": known.name,
            "kind": known.location.kind,
            "subjects_floor": known.subjects_floor,
            "declares": [] if said is None else [str(use) for use in said.declares],
            "modifiers": [] if said is None else [shown(one) for one in said.modifiers],
        }
        for known in registry.datasets()
        for said in [registry.terms(known.name)]
    ]
    if as_json:
        console.emit(told)
        return
    rows = [
        (d["name"], d["kind"], f"≥ {d['subjects_floor']}", ", ".join(d["declares"]), ", ".join(d["modifiers"]))
        for d in told
    ]
    columns = ("name", "kind", "subjects (declared)", "also for", "on condition of")
    console.out.print(console.table("data sets", columns, rows))


@consent.command("import")
def import_consent(
    file: Annotated[
        Path,
        typer.Argument(
            help="CSV with subject_id,purpose,decision,valid_from,valid_to or by a mapping; FHIR Consent resources as "
            "NDJSON, a bundle or a folder."
        ),
    ],
    mapping: Annotated[
        Path | None, typer.Option(help="A TOML file that says what the file's columns and codes mean.")
    ] = None,
    fhir: Annotated[
        bool | None, typer.Option("--fhir/--csv", help="What the file is, where its name does not tell.")
    ] = None,
    exported: Annotated[
        str | None,
        typer.Option(
            help="When its source wrote the CSV file, ISO 8601; without it no line widens what it said before."
        ),
    ] = None,
    site: SiteFolder = Path(),
    as_json: AsJson = False,
) -> None:
    """Take in people's decisions; a bad line is set aside with its reason, the rest goes in, twice changes nothing."""
    written = None if exported is None else utc(exported)
    report = _imported(open_registry(open_home(site)), file, _mapping(mapping), fhir=fhir, exported=written)
    if as_json:
        console.emit(
            {
                "taken": report.taken,
                "known": report.known,
                "set_aside": [{"line": one.line, "reason": str(one.reason)} for one in report.unreadable],
                "doubtful": list(report.doubtful),
                "set_aside_by_reason": {str(reason): count for reason, count in sorted(report.set_aside.items())},
            }
        )
        return
    _show_import(report)


def _condition(text: str) -> Modifier:
    code, _, values = text.partition("=")
    return modifier(code, values.split(",") if values else ())


def _mapping(path: Path | None) -> ConsentMapping | None:
    return None if path is None else load_mapping(path)


def _imported(
    registry: SiteRegistry,
    file: Path,
    mapping: ConsentMapping | None,
    *,
    fhir: bool | None,
    exported: datetime | None = None,
) -> ImportReport:
    """Take decisions in, with a running count on a terminal."""
    with console.err.status("taking decisions in") as shown:
        return registry.import_consent(
            file,
            now(),
            mapping=mapping,
            fhir=fhir,
            exported=exported,
            progress=lambda count: shown.update(f"taking decisions in: {count:,} lines read"),
        )


def _show_import(report: ImportReport) -> None:
    aside = sum(report.set_aside.values())
    console.out.print(f"{report.taken} decisions taken, {report.known} known already, {aside} set aside")
    for one in report.unreadable[:_SHOWN]:
        console.out.print(f"  line {one.line} set aside: {one.reason}")
    if aside > _SHOWN:
        for reason, count in sorted(report.set_aside.items()):
            console.out.print(f"  {count} lines in all: {reason}")
        console.out.print("  every line is told with --json")
    if report.doubtful:
        first = ", ".join(str(line) for line in report.doubtful[:_SHOWN])
        console.out.print(
            f"[bold]Look at line {first}[/]: what it said before still permits, and now it cannot be read"
        )


def _location(table: Path | None, schema: str, images: Path | None, shape: str, files: Path | None) -> AnyLocation:
    if sum(one is not None for one in (table, images, files)) != 1:
        raise BractError(MALFORMED, "name one of --table, --images and --files")
    if table is not None:
        return TableLocation("table", str(table.absolute()), schema)
    if files is not None:
        return FilesLocation("files", str(files.absolute()))
    try:
        channels, height, width = (int(part) for part in shape.split("x"))
    except ValueError as error:
        raise BractError(MALFORMED, "shape: three numbers such as 1x28x28") from error
    if channels not in (1, 3):
        raise BractError(MALFORMED, "shape: images have 1 or 3 channels")
    return ImagesLocation("images", str(Path(images or "").absolute()), 1 if channels == 1 else 3, height, width)


def _ingested(registry: SiteRegistry, name: str) -> IngestReport:
    """Take a data set's records in, with a running count on a terminal."""
    with console.err.status("taking records in") as shown:
        return registry.ingest(name, now(), lambda count: shown.update(f"taking records in: {count:,} read"))


def _show_ingest(report: IngestReport, decided: ImportReport | None, as_json: bool) -> None:
    quarantined = {str(reason): count for reason, count in report.quarantined.items()}
    if as_json:
        console.emit(
            {
                "taken": report.taken,
                "unchanged": report.unchanged,
                "removed": report.removed,
                "quarantined": quarantined,
                "decisions": None if decided is None else decided.taken,
            }
        )
        return
    console.out.print(f"{report.taken} records taken, {report.unchanged} unchanged, {report.removed} removed")
    for reason, count in quarantined.items():
        console.out.print(f"  {count} lines set aside: {reason}")
    if decided is not None:
        _show_import(decided)
