"""Tokens of SoftHSM2, from the distribution's package; pkcs11-tool as who looks at them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from lamassu.services.kms.contract import KeyAlgorithm
from lamassu.services.kms.engines.pkcs11 import Pkcs11Engine, WrappingEngine, open_engine
from lamassu.services.kms.engines.pkcs11.mechanisms import recipe
from lamassu.services.kms.model import SignatureScheme
from tests.support.engines import ComponentMissing

MODULES = (
    Path("/usr/lib/softhsm/libsofthsm2.so"),
    Path("/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so"),
    Path("/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so"),
)
BACKUP_KEY = "lamassu-backup"


def find_module() -> Path:
    """The installed library. Raises `ComponentMissing`."""
    if shutil.which("softhsm2-util") is None or shutil.which("pkcs11-tool") is None:
        raise ComponentMissing("SoftHSM2 is not installed (apt-get install softhsm2 opensc)")
    for module in MODULES:
        if module.exists():
            return module
    raise ComponentMissing("libsofthsm2.so is not where the package softhsm2 puts it")


@dataclass
class SoftHsm:
    """A directory of tokens, and a copy of the library: one that is this process's already reads
    no other configuration, and sees tokens only of its start."""

    folder: Path

    def __post_init__(self) -> None:
        module = find_module()
        (self.folder / "tokens").mkdir(parents=True)
        self.config.write_text(
            f"directories.tokendir = {self.folder / 'tokens'}\n"
            "objectstore.backend = file\n"
            "log.level = ERROR\n"
        )
        shutil.copy(module, self.inner)

    @property
    def inner(self) -> Path:
        return self.folder / "libsofthsm2.so"

    @property
    def module(self) -> Path:
        return self.inner

    @property
    def config(self) -> Path:
        return self.folder / "softhsm2.conf"

    @property
    def env(self) -> Mapping[str, str]:
        return {"SOFTHSM2_CONF": str(self.config)}

    def token(self, label: str = "ca", *, pin: str = "1234", so_pin: str = "87654321") -> Token:
        """Initialise one more token."""
        self._util("--init-token", "--free", "--label", label, "--so-pin", so_pin, "--pin", pin)
        return Token(self, label, pin, so_pin)

    @contextmanager
    def gone(self) -> Iterator[None]:
        """Within it every token is away."""
        away = self.folder / "away"
        (self.folder / "tokens").rename(away)
        try:
            yield
        finally:
            shutil.rmtree(self.folder / "tokens", ignore_errors=True)
            away.rename(self.folder / "tokens")

    def _util(self, *arguments: str) -> None:
        run(["softhsm2-util", *arguments], self.env)


@cache
def _shim() -> bytes:
    """The library, compiled once for the run."""
    compiler = shutil.which("gcc")
    if compiler is None:
        raise ComponentMissing("there is no C compiler (apt-get install gcc libc6-dev)")
    source = Path(__file__).with_name("pkcs11_shim.c")
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / "shim.so"
        run([compiler, "-shared", "-fPIC", "-O1", "-o", str(built), str(source)], {})
        return built.read_bytes()


def _csign(folder: Path) -> Path:
    """The program, compiled into the folder once."""
    built = folder / "csign"
    if not built.exists():
        source = Path(__file__).resolve().parents[2] / "bench" / "csign" / "csign.c"
        run(["gcc", "-O2", "-o", str(built), str(source), "-ldl", "-lpthread"], {})
    return built


FUNCTIONS = {  # their places in CK_FUNCTION_LIST
    "C_GetTokenInfo": 6,
    "C_OpenSession": 12,
    "C_CloseSession": 13,
    "C_Login": 18,
    "C_Logout": 19,
    "C_CreateObject": 20,
    "C_SetAttributeValue": 25,
    "C_FindObjectsInit": 26,
    "C_SignInit": 42,
    "C_Sign": 43,
    "C_UnwrapKey": 61,
}


@dataclass
class ShimmedHsm(SoftHsm):
    """SoftHSM behind a library that counts, fails and hangs as a test asks (pkcs11_shim.c)."""

    cannot_lock: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self.module.write_bytes(_shim())

    @property
    def module(self) -> Path:
        return self.folder / "shim.so"

    @property
    def env(self) -> Mapping[str, str]:
        locks = str(int(self.cannot_lock))
        return {**super().env, "SHIM_MODULE": str(self.inner), "SHIM_CANNOT_LOCK": locks}

    @property
    def shim(self) -> ctypes.CDLL:
        return ctypes.CDLL(str(self.module))

    def calls(self, function: str) -> int:
        """How often it was called."""
        return int(self.shim.shim_calls(FUNCTIONS[function]))

    def fail(self, function: str, answer: int, *, times: int = -1, after: int = 0) -> None:
        """Have it answer so, `times` times or until told otherwise, `after` so many calls."""
        self.shim.shim_fail(FUNCTIONS[function], ctypes.c_ulong(answer), times, after)

    def hang(self, function: str, yes: bool) -> None:
        """Have it never return, until told otherwise."""
        self.shim.shim_hang(FUNCTIONS[function], int(yes))

    @property
    def most_inside(self) -> int:
        """The largest number of threads that were in it at once."""
        return int(self.shim.shim_most_inside())


@dataclass(frozen=True)
class Token:
    """One token: what a configuration says of it."""

    hsm: SoftHsm
    label: str
    pin: str
    so_pin: str

    @property
    def module_path(self) -> Path:
        return self.hsm.module

    @property
    def env(self) -> Mapping[str, str]:
        return self.hsm.env

    @property
    def refused_pins(self) -> Path:
        return self.hsm.folder / "data" / "hsm"

    def engine(self, **changed: object) -> Pkcs11Engine:
        """A fresh adapter, as after a restart."""
        arguments: dict[str, object] = {
            "token": self.label,
            "pin": self.pin.encode(),
            "module_path": self.module_path,
            "refused_pins": self.refused_pins,
            "env": self.env,
            "timeout_seconds": 5,
            **changed,
        }
        return open_engine("hsm", **arguments)  # type: ignore[arg-type]

    def wrapping_engine(self, **changed: object) -> WrappingEngine:
        """One whose keys can be backed up."""
        engine = self.engine(backup_key=BACKUP_KEY, **changed)
        assert isinstance(engine, WrappingEngine)
        return engine

    def section(self, **more: str) -> str:
        """The `crypto_engines:` of a configuration; its PIN is in `$HSM_PIN`."""
        lines = [
            "crypto_engines:",
            "  pkcs11:",
            "    - id: hsm",
            f"      token: {self.label}",
            '      pin: "${HSM_PIN}"',
            f"      module_path: {self.module_path}",
            f"      module_extra_options: {{env: {{SOFTHSM2_CONF: {self.hsm.config}}}}}",
            *(f"      {name}: {value}" for name, value in more.items()),
        ]
        return "\n".join(lines) + "\n"

    def tool(self, *arguments: str, login: bool = True) -> str:
        """What pkcs11-tool says of this token."""
        who = ("--login", "--pin", self.pin) if login else ()
        where = ("--module", str(self.module_path), "--token-label", self.label)
        return run(["pkcs11-tool", *where, *who, *arguments], self.env)

    def objects(self) -> list[dict[str, str]]:
        """Every object that pkcs11-tool lists: its kind under "object", then what it says."""
        found: list[dict[str, str]] = []
        for line in self.tool("--list-objects").splitlines():
            name, _, value = line.partition(":")
            if re.match(r"\S.* (Key|Object)", line):
                found.append({"object": line.strip()})
            elif found and line.startswith("  "):
                found[-1][name.strip()] = value.strip()
        return found


def run(command: list[str], env: Mapping[str, str]) -> str:
    """Its output. Raises `RuntimeError` with what it complained of."""
    done = subprocess.run(
        command, capture_output=True, check=False, text=True, env={**os.environ, **env}
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stdout}{done.stderr}")
    return done.stdout


@dataclass
class SoftHsmStand:
    """A token for the suite that all engines share."""

    token: Token

    def engine(self) -> Pkcs11Engine:
        return self.token.engine()

    def section(self) -> str:
        return self.token.section()

    @property
    def environment(self) -> Mapping[str, str]:
        return {"HSM_PIN": self.token.pin}

    def gone(self) -> object:
        return self.token.hsm.gone()

    def native_rate(
        self, key_id: str, scheme: SignatureScheme, message: bytes, threads: int, seconds: float
    ) -> float:
        """Signatures per second of a loop in C over the same key (bench/csign)."""
        used = recipe(scheme, 0)
        digest = message if scheme.hash is None else hashlib.new(scheme.hash.name, message).digest()
        parameter = 0 if used.parameter is None else int(used.parameter[0])
        data = digest if scheme.algorithm is KeyAlgorithm.ECDSA else used.prepare(digest)
        where = [str(self.token.module_path), self.token.label, key_id]
        how = [hex(used.mechanism), hex(parameter), data.hex(), str(threads), str(seconds)]
        program = str(_csign(self.token.hsm.folder))
        return float(run([program, *where, *how], {**self.token.env, "CSIGN_PIN": self.token.pin}))


@contextmanager
def stand(folder: Path) -> Iterator[SoftHsmStand]:
    """Raises `ComponentMissing`."""
    yield SoftHsmStand(SoftHsm(folder / "hsm").token())
