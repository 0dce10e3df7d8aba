"""What a command and `import latentdiff` import, by what is in sys.modules afterwards; nothing is timed."""

import subprocess
import sys

import pytest

LIBRARIES = ("transformers", "peft", "scipy", "pandas", "sklearn", "matplotlib", "datasets", "torchvision")
NOT_FOR_A_TOKENIZER = (
    *(library for library in LIBRARIES if library != "transformers"),
    "transformers.modeling_utils",
    "transformers.image_processing_utils",
    "transformers.processing_utils",
    "transformers.generation",
)


def after(code, modules, tmp_path):
    """Which of the modules a process has imported after some code, and what it has said on stderr."""
    code += f"\nimport sys\nprint('IMPORTED', *(name for name in {modules!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
    return done.stdout.splitlines()[-1].split()[1:], done.stderr


def command(*words):
    return f"from latentdiff.cli.main import main\nassert main({list(words)!r}) == 0"


@pytest.mark.thorough
def test_a_model_without_text_needs_nothing_of_transformers(tmp_path, unconditional_model):
    words = ("sample", "--model", unconditional_model, "-n", "1", "--steps", "1", "-o", "samples")
    assert after(command(*words), ("torch", *LIBRARIES), tmp_path) == (["torch"], "")
    assert len(list(tmp_path.glob("samples/*.png"))) == 1


@pytest.mark.thorough
def test_the_built_in_model_needs_the_tokenizers_of_transformers_alone(tmp_path):
    words = ("generate", "a red apple", "--steps", "1", "-o", "image.png")
    modules = ("transformers.tokenization_utils_base", *NOT_FOR_A_TOKENIZER)
    assert after(command(*words), modules, tmp_path) == (["transformers.tokenization_utils_base"], "")


@pytest.mark.thorough
def test_from_python_nothing_is_said_about_other_packages(tmp_path):
    code = "import latentdiff\npipe = latentdiff.DiffusionPipeline.from_pretrained('builtin:emoji')\n"
    code += "pipe.set_progress_bar_config(disable=True)\npipe('a red apple', num_inference_steps=1)"
    assert after(code, ("peft", "transformers.modeling_utils"), tmp_path) == ([], "")


@pytest.mark.thorough
def test_libraries_that_stood_aside_are_whole_when_they_are_used(tmp_path):
    code = """
import latentdiff, sys
pipe = latentdiff.DiffusionPipeline.from_pretrained('builtin:emoji')
import diffusers.hooks.layerwise_casting as casting, diffusers.loaders.lora_base as lora
import diffusers.pipelines.pipeline_loading_utils as loading
assert not isinstance(pipe.unet, casting.BaseTunerLayer) and not issubclass(type(pipe.vae), loading.PreTrainedModel)
assert 'peft' not in sys.modules and 'transformers.modeling_utils' not in sys.modules
import peft, scipy.stats, transformers
model = peft.get_peft_model(pipe.unet, peft.LoraConfig(target_modules=['to_q']))
assert any(isinstance(module, casting.BaseTunerLayer) for module in model.modules())
assert loading._unwrap_model(model) is model.base_model.model  # what a pipeline knows a component of peft by
text = transformers.CLIPTextModel(transformers.CLIPTextConfig(num_hidden_layers=1, vocab_size=8, hidden_size=8,
    intermediate_size=8, num_attention_heads=1))
assert issubclass(type(text), loading.PreTrainedModel) and issubclass(type(text), (int, lora.PreTrainedModel))
assert loading.TRANSFORMERS_SAFE_WEIGHTS_NAME.split('.')[-1] == 'safetensors'
assert loading.transformers.__version__ == transformers.__version__
class Own(loading.PreTrainedModel):
    pass
assert issubclass(Own, transformers.PreTrainedModel)
import diffusers.schedulers.scheduling_euler_discrete as euler
assert euler.scipy.stats.beta.ppf(0.5, 1, 1) == scipy.stats.beta.ppf(0.5, 1, 1)
"""
    assert after(code, LIBRARIES[:3], tmp_path)[0] == list(LIBRARIES[:3])
