"""What every section of the configuration is made of."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Port = Annotated[int, Field(ge=0, le=65535)]


def base_url(*schemes: str) -> AfterValidator:
    """The type of a URL of one of these schemes, with nothing after its path."""

    def check(text: str) -> str:
        parts = urlsplit(text)
        if parts.scheme not in schemes or not parts.hostname or parts.query or parts.fragment:
            raise ValueError(f"a URL such as {schemes[0]}://name:port")
        return text

    return AfterValidator(check)


class Section(BaseModel):
    """A part of the file: immutable, and strict about its keys."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)
