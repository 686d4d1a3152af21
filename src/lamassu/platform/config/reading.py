"""From a file's values to settings: every fault at once, by its path, with what is allowed."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import get_close_matches
from typing import cast

from pydantic import SecretStr
from pydantic import ValidationError as PydanticValidationError

from lamassu.kernel.errors import RuleViolation
from lamassu.platform.config.engine_forms import OTHER_FORMS, SECTION, by_kind
from lamassu.platform.config.engine_sections import AwsEngine, CryptoEngines
from lamassu.platform.config.faults import ConfigurationFaults, Fault
from lamassu.platform.config.sections import Section
from lamassu.platform.config.settings import Settings
from lamassu.platform.config.yaml_input import Document
from lamassu.platform.database.settings import DatabaseSettings


def judge(document: Document, source: str) -> Settings:
    """Make settings of a file's values. Raises `ConfigurationFaults` with every fault."""
    sorted_document, places = by_kind(document)
    try:
        return _judge(sorted_document, source)
    except ConfigurationFaults as error:
        faults = [places.as_written(fault) for fault in error.faults]
        raise ConfigurationFaults(source, faults) from None


def _judge(document: Document, source: str) -> Settings:
    faults = list(document.faults)
    known = {fault.path for fault in faults}
    try:
        settings = Settings.model_validate(document.values)
    except PydanticValidationError as error:
        found = [_fault(dict(one), document) for one in error.errors()]
        # a value that could not be read has nothing more to say
        faults += [fault for fault in found if fault.path not in known]
        raise ConfigurationFaults(source, faults) from None
    found = [*_contradictions(settings), *_never_in_clear(settings.crypto_engines, document)]
    faults += [fault for fault in found if fault.path not in known]
    if faults:
        raise ConfigurationFaults(source, faults)
    settings._secrets_in_clear = tuple(_clear_secrets(settings.crypto_engines, document))
    return settings


def _never_in_clear(engines: CryptoEngines, document: Document) -> list[Fault]:
    """A PIN and an unseal key never stand in the file, in no mode: who reads one can use every
    key, or open the vault that holds them."""
    pins = [f"crypto_engines.pkcs11[{index}].pin" for index in range(len(engines.pkcs11))]
    shares = [
        f"crypto_engines.hashicorp_vault[{index}].auto_unseal_keys[{place}]"
        for index, vault in enumerate(engines.hashicorp_vault)
        for place in range(len(vault.auto_unseal_keys))
    ]
    found = dict.fromkeys(pins, "a PIN in clear") | dict.fromkeys(shares, "an unseal key in clear")
    return [
        Fault(path, what, '"${VARIABLE}" or "${file:PATH}"')
        for path, what in found.items()
        if path not in document.referred
    ]


def _different_environments(engines: CryptoEngines) -> list[Fault]:
    """A process has one environment: two libraries cannot see one variable differently."""
    faults: list[Fault] = []
    given: dict[str, str] = {}
    for index, engine in enumerate(engines.pkcs11):
        for name, value in engine.module_extra_options.env.items():
            if given.setdefault(name, value) != value:
                where = f"crypto_engines.pkcs11[{index}].module_extra_options.env.{name}"
                wanted = "one value for every engine of this process"
                faults.append(Fault(where, "another value than an engine before it has", wanted))
    return faults


def _contradictions(settings: Settings) -> list[Fault]:
    faults = []
    if settings.database is not None and settings.postgres is not None:
        faults.append(Fault("database", "a URL beside postgres", "one of database and postgres"))
    elif settings.database is not None:
        try:
            DatabaseSettings.from_url(settings.database.url.get_secret_value())
        except RuleViolation as error:
            faults.append(Fault("database.url", "a URL that is none", error.text))
    engines = settings.crypto_engines
    ids = engines.ids
    faults += [
        Fault("crypto_engines", f"the id {one} twice", "each id once")
        for one in sorted({one for one in ids if ids.count(one) > 1})
    ]
    if not ids:
        faults.append(Fault("crypto_engines", "no engine", "an engine, such as under software"))
    faults += [
        Fault(f"crypto_engines.hashicorp_vault[{index}].address", "nothing", "https://name:port")
        for index, vault in enumerate(engines.hashicorp_vault)
        if vault.address is None and vault.hostname is None
    ]
    faults += [
        fault
        for kind in ("aws_kms", "aws_secrets_manager")
        for index, engine in enumerate(getattr(engines, kind))
        for fault in _aws_faults(f"crypto_engines.{kind}[{index}]", engine)
    ]
    faults += _different_environments(engines)
    folders = [engine.storage_directory for engine in engines.software]
    if len(set(folders)) < len(folders):
        where = "crypto_engines.software"
        faults.append(Fault(where, "a storage_directory twice", "a folder of its own for each"))
    if ids and engines.default_id is None and len(ids) > 1:
        allowed = f"one of {', '.join(ids)}"
        faults.append(Fault("crypto_engines.default_id", "nothing", allowed))
    elif engines.default_id not in (None, *ids):
        found = "an id that is none of theirs"
        faults.append(Fault("crypto_engines.default_id", found, ", ".join(ids)))
    return faults


def _aws_faults(where: str, engine: AwsEngine) -> list[Fault]:
    """Each way to authenticate has its keys, and no other's: one that is not used misleads."""
    belongs = {
        "static": ("access_key_id", "secret_access_key"),
        "role": ("role_arn",),
    }
    faults = []
    for method, keys in belongs.items():
        uses = engine.auth_method == method
        optional = ("session_token",) if method == "static" else ()
        for key in (*keys, *optional):
            given = getattr(engine, key) is not None
            if given and not uses:
                found = f"a value beside auth_method {engine.auth_method}"
                faults.append(Fault(f"{where}.{key}", found, f"auth_method: {method}, or no value"))
            elif uses and not given and key in keys:
                faults.append(
                    Fault(f"{where}.{key}", "nothing", f"a value, for auth_method {method}")
                )
    return faults


def _clear_secrets(engines: CryptoEngines, document: Document) -> Iterator[str]:
    """The paths of engines' secrets that stand in the file themselves."""
    for kind in type(engines).model_fields:
        sections = getattr(engines, kind)
        for index, section in enumerate(sections if isinstance(sections, tuple) else ()):
            for name in type(section).model_fields:
                path = f"crypto_engines.{kind}[{index}].{name}"
                if name in _NAMES_ONLY or path in document.referred:
                    continue
                value = getattr(section, name)
                if isinstance(value, SecretStr):
                    yield path
                elif isinstance(value, tuple):
                    yield from (
                        f"{path}[{place}]"
                        for place, one in enumerate(value)
                        if isinstance(one, SecretStr)
                        and f"{path}[{place}]" not in document.referred
                    )


_NAMES_ONLY = frozenset({"access_key_id", "role_id"})  # worth masking, no secret by themselves
_SECRET_FIELDS = frozenset(
    {
        "password",
        "pin",
        "role_id",
        "secret_id",
        "auto_unseal_keys",
        "access_key_id",
        "secret_access_key",
        "session_token",
        "url",
    }
)


_NOT_A_SECTION = frozenset({"model_type", "dict_type", "list_type", "tuple_type"})


def _fault(error: dict[str, object], document: Document) -> Fault:
    location = cast("tuple[str | int, ...]", error["loc"])
    path = _path(location)
    kind = str(error["type"])
    if kind == "extra_forbidden":
        return Fault(path, "a key that is not known", _near(str(location[-1]), location[:-1]))
    if kind == "missing":
        return Fault(path, "nothing", "a value, which is required")
    context = error.get("ctx")
    expected = context.get("expected") if isinstance(context, dict) else None
    text = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input should be ")
    if kind in _NOT_A_SECTION:
        # never the value: a secret may stand where its section should
        text = "a list" if kind in {"list_type", "tuple_type"} else "a mapping"
        return Fault(path, _kind_of(_at(document.values, location)), text)
    secret = path in document.referred or not _SECRET_FIELDS.isdisjoint(location)
    found = "a value that is not shown" if secret else _shown(_at(document.values, location))
    return Fault(path, found, str(expected or text))


def _near(key: str, section: tuple[str | int, ...]) -> str:
    """The keys that would have been taken, the one that was meant before all."""
    keys = sorted({*_keys_at(section), *(OTHER_FORMS if section == (SECTION,) else ())})
    near = get_close_matches(key.lower(), keys, n=1)
    return ", ".join(keys) + (f" (did you mean {near[0]}?)" if near else "")


def _path(location: tuple[object, ...]) -> str:
    text = ""
    for part in location:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _at(values: object, location: tuple[object, ...]) -> object:
    for part in location:
        try:
            values = values[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return values
    return values


def _kind_of(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    return "a text" if isinstance(value, str) else "a number or the like"


def _shown(value: object) -> str:
    if value is None or isinstance(value, dict | list):
        return _kind_of(value)
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _keys_at(location: tuple[object, ...]) -> list[str]:
    """The keys that a section takes, found by walking the types of its path."""
    model: object = Settings
    for part in location:
        if isinstance(part, int):
            continue
        fields = getattr(model, "model_fields", {})
        if part not in fields:
            return ["nothing"]
        model = _section_in(fields[part].annotation)
    return sorted(getattr(model, "model_fields", {}))


def _section_in(annotation: object) -> object:
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation
    for inner in getattr(annotation, "__args__", ()):
        found = _section_in(inner)
        if found is not None:
            return found
    return None
