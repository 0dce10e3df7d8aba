"""Compiled programs on disk, under a key of all that they depend on, so that the next process has them at once."""

from __future__ import annotations

import hashlib
import json
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

import diffusers
import torch
from huggingface_hub import cached_assets_path
from torch import Tensor, nn

from latentdiff.compat import compile_ahead, has_cpp_compiler, load_ahead
from latentdiff.compilation.calls import FlatCall
from latentdiff.errors import ConfigError, InputError, one_line
from latentdiff.io.files import atomic_file, check_writable, write_json
from latentdiff.io.lock import locked
from latentdiff.io.system import is_trusted
from latentdiff.types import JSON

Function = Callable[[list[Tensor]], list[Tensor]]
LIBRARY, FACTS = "program.so", "program.json"
SECONDS_BETWEEN_LOOKS = 0.5  # for the artefact that another process is compiling


def default_programs_folder() -> Path:
    """The folder of all programs: that of the hub's libraries for what they make (`HF_ASSETS_CACHE`).

    Raises:
        InputError: If it isn't there and can't be made.
    """
    try:
        return Path(cached_assets_path("latentdiff", "compilation", "programs"))
    except OSError as error:  # it makes the folder
        raise InputError(
            f"the folder of compiled programs can't be made ({one_line(error)}); set the environment variable "
            "HF_ASSETS_CACHE to one that can"
        ) from None


class Artefact:
    """One compiled program: a network with its weights, for calls of one signature, on a kind of machine.

    Args:
        facts: All that the program depends on, as JSON values.
        cache: The folder that has a folder for each program; the default one if None.
    """

    def __init__(self, facts: JSON, cache: Path | None = None) -> None:
        self.facts = facts
        text = json.dumps(facts, sort_keys=True)
        self.folder = (cache or default_programs_folder()) / hashlib.sha256(text.encode()).hexdigest()[:32]

    def load(self) -> Function | None:
        """The program; None if there is none, or none that can be loaded.

        A library of another user is not loaded, as it could do anything, nor one that is not as long as it was made: a
        system ends a process that reads beyond the end of a mapped file.
        """
        library = self.folder / LIBRARY
        try:
            facts, found = json.loads((self.folder / FACTS).read_text(encoding="utf-8")), library.stat()
            return load_ahead(library) if is_trusted(found) and facts["bytes"] == found.st_size else None
        except (OSError, RuntimeError, ValueError, KeyError, TypeError):  # not there, or damaged
            return None

    def build(self, call: FlatCall) -> Function:
        """Compile the program of a call, save it and load it; waits where another process is compiling it.

        Raises:
            ConfigError: If there is no C++ compiler, or what it made can't be loaded.
            InputError: If nothing can be written in the cache.
        """
        try:
            check_writable(self.folder / LIBRARY)
        except InputError as error:
            raise InputError(f"{error}, by the environment variable HF_ASSETS_CACHE") from None
        if not has_cpp_compiler():
            raise ConfigError("compiling needs a C++ compiler, such as g++, and finds none; install one, or set CXX")
        self.folder.mkdir(parents=True, exist_ok=True)
        with _alone(self.folder):
            program = self.load()  # of the process that was waited for
            if program is None:
                self._compile(call)
                program = self.load()
        if program is None:
            raise ConfigError(f"{self.folder / LIBRARY} has been compiled but can't be loaded; remove its folder")
        return program

    def _compile(self, call: FlatCall) -> None:
        start = time.perf_counter()
        with torch.no_grad(), atomic_file(self.folder / LIBRARY) as aside:
            program = torch.export.export(call.program, call.tensors, strict=False)
            compile_ahead(program, call.tensors, aside)
        facts = {
            **self.facts,
            "seconds": round(time.perf_counter() - start, 1),
            "bytes": (self.folder / LIBRARY).stat().st_size,
        }
        write_json(self.folder / FACTS, facts)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Have a folder for this process alone, once others have ended their work in it."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(folder))
                break
            except InputError:
                time.sleep(SECONDS_BETWEEN_LOOKS)
        yield


def environment() -> JSON:
    """What every program depends on: the code that it was traced from, the libraries, and what the machine can do."""
    return {
        "code": _code_digest(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "system": [platform.system(), platform.machine()],
        "cpu": _capabilities(),
    }


def weights_digest(network: nn.Module) -> str:
    """A hash of all weights of a network, their names, shapes and data types.

    Gigabytes of them take seconds, as hashing lets go of the interpreter and one thread each does a tensor.
    """

    def digest(entry: tuple[str, Tensor]) -> bytes:
        name, tensor = entry
        tensor = tensor.detach().cpu().contiguous()
        found = hashlib.sha256(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        found.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return found.digest()

    state: Mapping[str, Tensor] = network.state_dict()
    with ThreadPoolExecutor(max(1, torch.get_num_threads())) as pool:
        return hashlib.sha256(b"".join(pool.map(digest, sorted(state.items())))).hexdigest()


@cache
def _code_digest() -> str:
    """A hash of the source of networks, of how they are called, and of the options that they are compiled with."""
    root = Path(__file__).parents[1]
    files = [*sorted((root / "nn").glob("*.py")), *sorted((root / "models").glob("*.py"))]
    files += [root / "compilation" / "calls.py", root / "compat.py"]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()


def _capabilities() -> list[str]:
    """What instructions the CPU has."""
    known: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return [torch.backends.cpu.get_cpu_capability(), *sorted(name for name, value in known.items() if value is True)]
