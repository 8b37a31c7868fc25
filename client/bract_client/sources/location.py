"""Where a data set lies and of what form it is: the public value that the registry keeps, and the source it opens."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from bract.tables import schema
from bract.value import strict
from bract_client.sources.files import Files
from bract_client.sources.images import Images
from bract_client.sources.record import Source
from bract_client.sources.table import Table


@strict
@dataclass(frozen=True)
class TableLocation:
    """A Parquet file with the columns of a public schema (`bract.tables`)."""

    kind: Literal["table"]
    path: str
    schema: str


@strict
@dataclass(frozen=True)
class ImagesLocation:
    """A folder with manifest.csv and PNG files of one shape."""

    kind: Literal["images"]
    path: str
    channels: Literal[1, 3]
    height: Annotated[int, Field(ge=1, le=4096)]
    width: Annotated[int, Field(ge=1, le=4096)]


@strict
@dataclass(frozen=True)
class FilesLocation:
    """A folder with manifest.csv or manifest.jsonl and files of any kind, kept as their bytes; no encoder reads them yet."""

    kind: Literal["files"]
    path: str


AnyLocation = TableLocation | ImagesLocation | FilesLocation
SourceLocation = Annotated[AnyLocation, Field(discriminator="kind")]


def open_source(location: AnyLocation) -> Source:
    """The source at this location; nothing is read yet.

    Raises:
        BractError: `malformed` for a schema that this version does not have.
    """
    match location:
        case TableLocation():
            return Table(Path(location.path), schema(location.schema))
        case FilesLocation():
            return Files(Path(location.path))
        case ImagesLocation():
            return Images(Path(location.path), (location.channels, location.height, location.width))
