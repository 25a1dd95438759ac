"""What an experiment's maps are given out as: licence, creator, DOI and references.

Artefacts do not depend on these settings: none is part of an identity.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field

NOT_STATED = "not stated"


def as_tuple(value: object) -> object:
    """Convert a single text to a tuple with it, and None to an empty tuple."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else value


def _without_resolver(value: object) -> object:
    """Return a DOI without the address of a resolver or `doi:` before it."""
    if not isinstance(value, str):
        return value
    for before in ("https://doi.org/", "http://doi.org/", "https://dx.doi.org/", "doi:"):
        value = value.removeprefix(before)
    return value


Text = Annotated[str, Field(min_length=1)]
Doi = Annotated[str, Field(pattern=r"^10\.\d{4,9}/\S+$"), BeforeValidator(_without_resolver)]
Url = Annotated[str, Field(pattern=r"^https?://\S+$")]
Licence = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9.+-]*$")]


class ProductConfig(BaseModel, frozen=True, extra="forbid"):
    """How the maps may be used and cited. What is null is described as not stated."""

    license: Licence | None = Field(
        None,
        description="licence of the maps as SPDX identifier, such as CC-BY-4.0, or `other`; null: "
        "not stated",
    )
    creator: Text | None = Field(
        None, description="person, group or institution that made the maps; null: not stated"
    )
    creator_url: Url | None = Field(None, description="page of the creator")
    doi: Doi | None = Field(
        None, description="DOI of the maps, such as 10.5281/zenodo.123; null: not stated"
    )
    references: Annotated[tuple[Text, ...], BeforeValidator(as_tuple)] = Field(
        (), description="publications and pages that describe the maps or the method"
    )

    @property
    def stated_license(self) -> str:
        """The licence, or `not stated`."""
        return self.license or NOT_STATED

    @property
    def stated_creator(self) -> str:
        """The creator, or `not stated`."""
        return self.creator or NOT_STATED
