"""How keys are named and shown on the command line."""

from __future__ import annotations

from typing import Annotated

import typer

from lamassu.cli.output import Column

COLUMNS = (
    Column("key id", "key_id"),
    Column("name", "name"),
    Column("algorithm", "algorithm"),
    Column("size", "size"),
    Column("engine", "engine_id"),
    Column("tags", "tags"),
)
DETAILS = (
    *COLUMNS,
    Column("aliases", "aliases"),
    Column("origin", "origin"),
    Column("created", "creation_ts"),
    Column("URI", "pkcs11_uri"),
    Column("metadata", "metadata"),
)
STATS = (
    Column("keys", "total_keys"),
    Column("by engine", "keys_distribution_per_engine"),
    Column("by algorithm", "keys_distribution_per_algorithm"),
)

KeyId = Annotated[str, typer.Argument(help="Key id or alias.")]
Engine = Annotated[str, typer.Option(help="Crypto engine; the default one if absent.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="A tag; repeatable.")]
