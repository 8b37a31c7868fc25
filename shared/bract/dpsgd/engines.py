"""Names of the engines. No torch here: settings name one without loading it."""

from typing import Literal

EngineName = Literal["bract", "vmap", "opacus"]
"""`bract.dpsgd.clipper` says what each is."""
