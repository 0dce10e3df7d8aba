"""Private names of other libraries: all that this package uses, each with why it is needed.

What a library documents is used where it is needed; what it may drop in any release is used here and nowhere else.
`tests/test_compat.py` has a test for each name that fails when the name goes or comes to mean something else, and one
that finds private names anywhere else in the package. Two kinds are no such names: those that diffusers documents for
subclasses (`_optional_components`, `_execution_device` and a few more), which the test lists, and those that stand in
files, such as `torch._utils._rebuild_tensor_v2` in a checkpoint, which are a format.

Libraries are imported when a function is called, so that this module costs nothing to import.
"""

from __future__ import annotations

import importlib
import io
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

    # The class of pydantic's model classes, by its name: what a type checker needs of a class of model classes. When
    # the program runs, `type(BaseModel)` is the public way to it.
    from pydantic._internal._model_construction import ModelMetaclass as ModelMetaclass  # noqa: PLC0414


class _HasFingerprint(Protocol):
    """A data set of Hugging Face's `datasets`."""

    _fingerprint: str


class _ZeroOptimizer(Protocol):
    """DeepSpeed's optimizer of the ZeRO stages 1 and 2."""

    def _lazy_init_hp_params_optimizer_state(self) -> None: ...


UNUSED_LIBRARIES = ("transformers", "peft", "scipy")


class _Unimported(ModuleType):
    """Stands for a module of a library that is imported once something of it is used."""

    def __getattr__(self, name: str) -> object:
        if name == "__version__":
            return version(self.__name__.partition(".")[0])
        if name.startswith("__"):
            raise AttributeError(name)
        stands = sys.modules.get(self.__name__) is self
        return _UnimportedName(self.__name__, name) if stands else getattr(importlib.import_module(self.__name__), name)


class _UnimportedName:
    """Stands for what a module that isn't imported yet has by a name, most often a class."""

    def __init__(self, module: str, name: str) -> None:
        self.__module, self.__name = module, name

    def __it(self) -> object:
        _UnusedLibraries.give_way()
        return getattr(importlib.import_module(self.__module), self.__name)

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # what typing and inspect look for
            raise AttributeError(name)
        return getattr(self.__it(), name)

    def __call__(self, *args: object, **kwargs: object) -> object:
        it = self.__it()
        assert callable(it)
        return it(*args, **kwargs)

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[object, ...]:
        return (self.__it(),)

    def __instancecheck__(self, instance: object) -> bool:
        return self.__subclasscheck__(type(instance))

    def __subclasscheck__(self, subclass: type) -> bool:
        # A subclass has an ancestor of the library: of all other classes the answer is known without importing it.
        library = self.__module.partition(".")[0]
        found = any(base.__module__.partition(".")[0] == library for base in subclass.__mro__)
        it = self.__it() if found else None
        return isinstance(it, type) and issubclass(subclass, it)


class _UnusedLibraries(MetaPathFinder, Loader):
    """While it stands in `sys.meta_path`, libraries that aren't imported yet are stood for."""

    def __init__(self, libraries: Iterable[str]) -> None:
        self.libraries = frozenset(libraries)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        known = fullname.partition(".")[0] in self.libraries
        return ModuleSpec(fullname, self, is_package=True) if known else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Unimported(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Execute nothing."""

    @classmethod
    def give_way(cls) -> None:
        """Let the libraries be imported from here on."""
        sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, cls)]
        for name in [name for name, module in sys.modules.items() if isinstance(module, _Unimported)]:
            del sys.modules[name]


def import_diffusers() -> None:
    """Import what pipelines need of diffusers, and with it none of `UNUSED_LIBRARIES`.

    diffusers imports these wherever they are installed, for comparisons with their classes and for functions that a
    call without adapters, CLIP and the like never gets to. That is a third of the time to a first image. Here they are
    stood for meanwhile, and imported once something of them is used. A pipeline that is made asks whether a component
    is peft's, which needs peft only where it is imported.
    """
    libraries = [name for name in UNUSED_LIBRARIES if name not in sys.modules and find_spec(name)]
    sys.meta_path.insert(0, _UnusedLibraries(libraries))
    try:
        import diffusers.loaders.lora_pipeline
        import diffusers.pipelines.pipeline_loading_utils as loading
        import diffusers.pipelines.pipeline_utils
        from diffusers.schedulers.scheduling_utils import KarrasDiffusionSchedulers

        # All schedulers that ours are compatible with are asked for when the configuration of one is read.
        others = ("LCMScheduler", "TCDScheduler", "SASolverScheduler", "FlowMatchEulerDiscreteScheduler")
        for name in (*(scheduler.name for scheduler in KarrasDiffusionSchedulers), *others):
            getattr(diffusers, name)
    finally:
        _UnusedLibraries.give_way()
    is_installed = loading.is_peft_available
    loading.is_peft_available = lambda: "peft" in sys.modules and is_installed()


def is_transformers_model(component: object) -> bool:
    """Whether a component is a network of transformers; it isn't imported to say that one is not."""
    name = "transformers.modeling_utils"  # which a network of it has imported
    return name in sys.modules and isinstance(component, sys.modules[name].PreTrainedModel)


def register_component_bases(names: Iterable[str]) -> None:
    """Make diffusers load and save components of this package whose base classes bear these names.

    diffusers keeps two tables of base classes: that of a library's components in a folder, and that of all libraries
    in one, which it looks into for what it has downloaded. No public call adds to either. Without them a component
    would load from a folder but not from the hub, and one that is no network, such as `LayoutTokenizer`, not at all.
    """
    from diffusers.pipelines.pipeline_loading_utils import ALL_IMPORTABLE_CLASSES, LOADABLE_CLASSES

    bases = {name: ["save_pretrained", "from_pretrained"] for name in names}
    LOADABLE_CLASSES.setdefault("latentdiff", bases)
    ALL_IMPORTABLE_CLASSES.update(bases)


def progress_bar_config(pipeline: object) -> dict[str, object]:
    """What a pipeline was last told by `set_progress_bar_config`, which has no counterpart that reads it."""
    return getattr(pipeline, "_progress_bar_config", {})


OFFLOAD_HOOK = "_hf_hook"
"""Where accelerate keeps the hook that offloads a module; nothing public tells whether there is one."""


def read_tensor_pickle(content: bytes, storage: Callable[[tuple[object, ...]], object]) -> object:
    """The value of a pickle of `torch.save`, read by torch's reader that makes tensors and runs nothing.

    `torch.load(weights_only=True)` uses the same reader, but finds the storages by itself and, for the meta device, in
    places that it computes from how torch writes archives, which are wrong for an archive of another program.

    Args:
        content: The pickle.
        storage: Makes the storage that a record of the pickle stands for.
    """
    from torch._weights_only_unpickler import Unpickler

    class Reader(Unpickler):
        def persistent_load(self, pid: tuple[object, ...]) -> object:
            return storage(pid)

    return Reader(io.BytesIO(content), encoding="utf-8").load()  # type: ignore[no-untyped-call]


def meta_storage(count: int, dtype: torch.dtype, offset: int) -> torch.storage.TypedStorage:
    """A storage without memory that knows where in a file its data is, as torch's reader takes it.

    torch itself notes the place in this attribute when it loads tensors without their data. Its reader takes a typed
    storage, which users can no longer make without a warning of its end.

    Args:
        count: Elements.
        dtype: Of the elements.
        offset: Of the first byte in the file.
    """
    import torch

    storage = torch.UntypedStorage(count * dtype.itemsize, device="meta")  # type: ignore[no-untyped-call]
    storage._checkpoint_offset = offset
    return torch.storage.TypedStorage(wrap_storage=storage, dtype=dtype, _internal=True)  # type: ignore[no-untyped-call]


def rebuild_tensor() -> Callable[..., torch.Tensor]:
    """The function that a pickle of `torch.save` names to make a tensor of its storage; it is a part of the format."""
    import torch._utils

    return torch._utils._rebuild_tensor_v2


def storage_offset(tensor: torch.Tensor) -> int | None:
    """Where the data of a tensor's `meta_storage` begins in its file; None if it has another storage."""
    return tensor.untyped_storage()._checkpoint_offset


def lerp_all_(targets: list[torch.Tensor], sources: list[torch.Tensor], weight: float) -> None:
    """`target.lerp_(source, weight)` for all pairs, in a few kernels on a GPU where the public call takes one each."""
    import torch

    torch._foreach_lerp_(targets, sources, weight)


def forget_accelerate_settings() -> None:
    """Let the next `Accelerator` of this process have another precision than the one before.

    accelerate keeps the first one's settings for the life of the process, and refuses others. The process group stays.
    """
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state()


def link_optimizer_state(optimizer: _ZeroOptimizer) -> None:
    """Tell the parameters under DeepSpeed's ZeRO where their parts of a state are that was loaded into the optimizer.

    DeepSpeed does so by itself at its first step only; its public `safe_set_full_optimizer_state` needs it before.
    """
    optimizer._lazy_init_hp_params_optimizer_state()


def dataset_fingerprint(table: _HasFingerprint) -> str:
    """A hash that changes with the content of a data set of Hugging Face's `datasets`; there is no public way to it."""
    return table._fingerprint


def has_cpp_compiler() -> bool:
    """Whether inductor finds a C++ compiler; it says so by an error, at the end of its work rather than before."""
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except (InvalidCxxCompiler, RuntimeError, OSError):
        return False
    return True


def compile_ahead(program: torch.export.ExportedProgram, tensors: tuple[torch.Tensor, ...], path: Path) -> None:
    """Compile an exported program for CPUs into one library, with its weights frozen, folded and packed.

    torch documents `aoti_compile_and_package` for this, which puts the library into an archive that every process
    unpacks before its first step: gigabytes are written a second time. Here the library lies open, and the weights at
    its end are mapped.

    Args:
        program: Of tensors alone.
        tensors: Its inputs, by whose shapes and strides it is compiled.
        path: The library; files that inductor makes on the way lie beside it.
    """
    import torch._inductor

    options = {
        "freezing": True,
        "aot_inductor.output_path": str(path),
        "aot_inductor.force_mmap_weights": sys.platform != "win32",
    }
    torch._inductor.aot_compile(program.module(), tensors, options=options)


def load_ahead(path: Path) -> Callable[[list[torch.Tensor]], list[torch.Tensor]]:
    """The function of a library of `compile_ahead`: tensors to tensors.

    Threads may call it; it lets one in at a time.
    """
    import torch

    runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1)
    return runner.run


def watch_weights(network: torch.nn.Module) -> Callable[[], list[int]]:
    """A function whose result changes when a weight of a network is changed, moved or replaced, or a module is.

    torch counts the changes of a tensor in place, but only a private attribute tells. A walk over the modules costs a
    small network some per cent of a step; to read their dictionaries, which stay theirs, costs next to nothing.
    """
    modules = list(network.modules())
    tensors = [holder for module in modules for holder in (module._parameters, module._buffers)]
    children = [module._modules for module in modules]

    def state() -> list[int]:
        found = [tensor for holder in tensors for tensor in holder.values() if tensor is not None]
        return [
            *(id(child) for holder in children for child in holder.values()),
            *(tensor.data_ptr() for tensor in found),
            *(0 if tensor.is_inference() else tensor._version for tensor in found),
        ]

    return state
