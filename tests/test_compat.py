"""Each private name of another library: a test that fails when it goes, and one that finds such names elsewhere."""

import ast
import importlib
import inspect
import pickle
import pkgutil
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from accelerate.hooks import ModelHook, add_hook_to_module
from torch._subclasses.fake_tensor import FakeTensorMode

import latentdiff
from latentdiff import DDIMScheduler, UnconditionalPipeline, compat

PACKAGE = Path(latentdiff.__file__).parent

# What diffusers has its subclasses and users define or read, though the names begin with an underscore.
INTERFACE = {
    "_callback_tensor_inputs": "what a pipeline's callbacks may ask for",
    "_compatibles": "schedulers that take a scheduler's configuration",
    "_execution_device": "where a pipeline computes, also under offload",
    "_gradient_checkpointing_func": "given to a network's modules that have `gradient_checkpointing`",
    "_keys_to_ignore_on_load_unexpected": "tensors of a file that a network has no use for",
    "_lora_loadable_modules": "components of a pipeline that take LoRA weights",
    "_name_or_path": "an entry of every configuration: where it was loaded from",
    "_no_split_modules": "what stays on one device where a network is spread over several",
    "_optional_components": "what a pipeline can do without",
    "_repeated_blocks": "what `compile_repeated_blocks` compiles",
    "_skip_layerwise_casting_patterns": "what `enable_layerwise_casting` leaves in full precision",
    "_supports_gradient_checkpointing": "as the error of `enable_gradient_checkpointing` asks for",
}


def test_own_bases_stand_in_diffusers_tables_as_its_own_do():
    from diffusers.pipelines.pipeline_loading_utils import ALL_IMPORTABLE_CLASSES, LOADABLE_CLASSES

    compat.register_component_bases(["LayoutTokenizer"])
    as_theirs = LOADABLE_CLASSES["diffusers"]["ModelMixin"]
    assert as_theirs == ["save_pretrained", "from_pretrained"]
    assert ALL_IMPORTABLE_CLASSES["LayoutTokenizer"] == ALL_IMPORTABLE_CLASSES["ModelMixin"] == as_theirs
    assert LOADABLE_CLASSES["latentdiff"]["LayoutTokenizer"] == as_theirs


def test_the_settings_of_a_progress_bar_are_what_the_pipeline_was_told():
    pipe = UnconditionalPipeline(None, None, DDIMScheduler())
    assert compat.progress_bar_config(pipe) == {}
    pipe.set_progress_bar_config(leave=False)
    assert compat.progress_bar_config(pipe) == {"leave": False}


def test_a_pickle_of_tensors_is_read_with_storages_that_know_their_place(tmp_path):
    values = torch.arange(6, dtype=torch.float16).reshape(2, 3)
    torch.save({"all": values, "some": values[1:], "number": 3}, tmp_path / "model.ckpt")
    with zipfile.ZipFile(tmp_path / "model.ckpt") as archive:
        content = archive.read("model/data.pkl")

    def storage(record):
        word, kind, key, device, count = record
        assert (word, kind.dtype, key, device, count) == ("storage", torch.float16, "0", "cpu", 6)
        return compat.meta_storage(6, torch.float16, 640)

    read = compat.read_tensor_pickle(content, storage)
    assert read["number"] == 3
    assert [read[name].device.type for name in ("all", "some")] == ["meta", "meta"]
    assert read["all"].shape == (2, 3) and read["all"].dtype == torch.float16
    assert read["some"].storage_offset() == 3
    assert [compat.storage_offset(read[name]) for name in ("all", "some")] == [640, 640]
    assert compat.storage_offset(values) is None


def test_torch_notes_the_place_of_a_storage_in_the_same_attribute(tmp_path):
    torch.save({"a": torch.ones(2), "b": torch.ones(3)}, tmp_path / "model.ckpt")
    with FakeTensorMode():
        read = torch.load(tmp_path / "model.ckpt", weights_only=True)
    with zipfile.ZipFile(tmp_path / "model.ckpt") as archive, open(tmp_path / "model.ckpt", "rb") as file:
        for name, record in (("a", "model/data/0"), ("b", "model/data/1")):
            file.seek(compat.storage_offset(read[name]))
            assert file.read(len(archive.read(record))) == archive.read(record)


def test_a_pickle_that_calls_something_is_refused():
    with pytest.raises(pickle.UnpicklingError, match="Unsupported global"):
        compat.read_tensor_pickle(pickle.dumps(inspect.signature, protocol=2), lambda record: None)


def test_many_tensors_are_interpolated_as_one_by_one():
    rng = torch.Generator().manual_seed(0)
    targets, sources = ([torch.randn(n, generator=rng) for n in (3, 1000)] for _ in range(2))
    expected = [target.lerp(source, 0.3) for target, source in zip(targets, sources, strict=True)]
    compat.lerp_all_(targets, sources, 0.3)
    assert all(torch.equal(target, value) for target, value in zip(targets, expected, strict=True))


def test_a_second_accelerator_can_have_another_precision():
    from accelerate import Accelerator

    compat.forget_accelerate_settings()
    Accelerator(cpu=True, mixed_precision="no")
    with pytest.raises(ValueError, match="already been initialized"):
        Accelerator(cpu=True, mixed_precision="bf16")
    compat.forget_accelerate_settings()
    assert Accelerator(cpu=True, mixed_precision="bf16").mixed_precision == "bf16"
    compat.forget_accelerate_settings()


def test_the_class_of_model_classes_is_what_type_checkers_are_told():
    from pydantic import BaseModel
    from pydantic._internal._model_construction import ModelMetaclass

    assert type(BaseModel) is ModelMetaclass


def test_deepspeed_links_the_state_of_its_optimizer():
    stages = pytest.importorskip("deepspeed.runtime.zero.stage_1_and_2")
    method = stages.DeepSpeedZeroOptimizer._lazy_init_hp_params_optimizer_state
    assert list(inspect.signature(method).parameters) == ["self"]


def test_the_fingerprint_of_a_data_set_changes_with_its_content():
    datasets = pytest.importorskip("datasets")
    one, same, other = (datasets.Dataset.from_dict({"a": values}) for values in ([1, 2], [1, 2], [1, 3]))
    assert compat.dataset_fingerprint(one) == compat.dataset_fingerprint(same)
    assert compat.dataset_fingerprint(one) != compat.dataset_fingerprint(other)


@pytest.mark.thorough
def test_no_other_module_uses_private_names_of_other_libraries():
    trees = [ast.parse(path.read_text("utf-8")) for path in PACKAGE.rglob("*.py") if path.name != "compat.py"]
    own = {name for tree in trees for name in defined(tree)}
    foreign = {name for tree in trees for name in used(tree)} - own
    shared = set(overrides())
    assert foreign <= set(INTERFACE), "belongs into compat.py, with a reason and a test"
    assert shared <= set(INTERFACE), "is another library's; give yours another name"
    assert set(INTERFACE) <= foreign | shared | own, "is used no longer"


def test_diffusers_has_the_names_of_its_interface():
    import diffusers
    from diffusers.loaders import StableDiffusionLoraLoaderMixin

    classes = (diffusers.DiffusionPipeline, diffusers.ModelMixin, diffusers.SchedulerMixin)
    absent = {n for n in INTERFACE if not any(hasattr(c, n) for c in (*classes, StableDiffusionLoraLoaderMixin))}
    assert absent == {
        "_callback_tensor_inputs",
        "_gradient_checkpointing_func",
        "_name_or_path",
    }  # no base class has these


def private(name):
    return name.startswith("_") and not name.startswith("__") and name != "_"


def defined(tree):
    """Private names that are members of our own classes: attributes of these names are taken to be ours."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            for member in node.body:
                if isinstance(member, ast.FunctionDef):
                    yield member.name
                elif isinstance(member, ast.AnnAssign | ast.Assign):
                    targets = member.targets if isinstance(member, ast.Assign) else [member.target]
                    yield from (target.id for target in targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr


def used(tree):
    """Private names of attributes, keywords and imported things, and of attributes that are asked for by a string."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Attribute):
            names = [node.attr]
        elif isinstance(node, ast.keyword):
            names = [node.arg or ""]
        elif isinstance(node, ast.Import):
            names = [part for alias in node.names for part in alias.name.split(".")]
        elif isinstance(node, ast.ImportFrom) and not (node.module or "").startswith("latentdiff"):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id.endswith("attr"):
            names = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
        yield from filter(private, names)


def overrides():
    """Private names that a class of ours shares with a class of another library that it inherits from."""
    for info in pkgutil.walk_packages(latentdiff.__path__, "latentdiff."):
        if info.name.endswith("__main__"):
            continue
        for _, cls in inspect.getmembers(importlib.import_module(info.name), inspect.isclass):
            ours = [base for base in cls.__mro__ if base.__module__.startswith("latentdiff.")]
            roots = {base: base.__module__.partition(".")[0] for base in cls.__mro__ if base not in ours}
            foreign = [base for base, root in roots.items() if root not in sys.stdlib_module_names]
            for name in filter(private, {name for base in ours for name in vars(base)} - {"_abc_impl"}):  # Python's
                if any(name in vars(base) for base in foreign):
                    yield name


@pytest.mark.parametrize(
    "source",
    [
        "import torch._utils",
        "from torch._utils import rebuild",
        "from torch.utils import _pytree",
        "table._fingerprint",
        "storage._offset = 3",
        "getattr(pipe, '_config', {})",
        "make(storage, _internal=True)",
    ],
)
def test_private_names_are_found(source):
    assert list(used(ast.parse(source)))


def test_other_names_are_not_private():
    assert not list(used(ast.parse("value.__class__, value.name; from a import b as _b; _")))


def test_offloading_leaves_its_hook_where_it_is_looked_for():
    module = torch.nn.Linear(1, 1)
    assert not hasattr(module, compat.OFFLOAD_HOOK)
    add_hook_to_module(module, ModelHook())
    assert hasattr(module, compat.OFFLOAD_HOOK)


class Affine(torch.nn.Module):
    """A layer from tensors to a tensor."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)

    def forward(self, value):
        return self.layer(value)


@pytest.mark.slow  # tests/compilation/test_frozen.py compiles ahead by the same functions
def test_a_program_that_was_compiled_ahead_computes_what_its_module_does(tmp_path):
    module, value = Affine().eval(), torch.randn(3, 2)
    with torch.no_grad():
        expected = module(value)
        program = torch.export.export(module, (value,), strict=False)
        compat.compile_ahead(program, (value,), tmp_path / "program.so")
        module.layer.weight.zero_()  # frozen
    [found] = compat.load_ahead(tmp_path / "program.so")([value])
    assert torch.allclose(found, expected, atol=1e-6)


def test_a_machine_without_a_compiler_is_known():
    import torch._inductor.config

    assert compat.has_cpp_compiler()
    with torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)}):
        assert not compat.has_cpp_compiler()


@pytest.mark.parametrize(
    "change",
    [
        lambda module: module.layer.weight.add_(1),
        lambda module: module.layer.weight.copy_(torch.zeros(2, 2)),
        lambda module: setattr(module.layer, "bias", None),
        lambda module: setattr(module.layer, "weight", torch.nn.Parameter(torch.zeros(2, 2))),
        lambda module: setattr(module, "layer", torch.nn.Linear(2, 2)),
        lambda module: setattr(module.layer.weight, "data", torch.zeros(2, 2)),
        lambda module: module.layer.add_module("more", torch.nn.Linear(1, 1)),
    ],
)
@torch.no_grad()
def test_every_change_of_weights_is_seen(change):
    module = Affine()
    state = compat.watch_weights(module)
    before = state()
    module(torch.ones(1, 2))
    assert state() == before
    change(module)
    assert state() != before
