"""Whole model folders with random weights, small enough to make in every test run."""

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTokenizer

from latentdiff import (
    ClassEmbedder,
    ClassToImagePipeline,
    DDIMScheduler,
    DiffusionPipeline,
    HybridPipeline,
    InpaintPipeline,
    LayoutToImagePipeline,
    LayoutTokenizer,
    LDMTextEncoder,
    SegmentationEncoder,
    SemanticToImagePipeline,
    SuperResolutionPipeline,
    TextToImagePipeline,
    UnconditionalPipeline,
    UNet2DConditionModel,
)
from latentdiff.models.tokenizer import load_tokenizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = ["a", "an", "the", "of", "and", "red", "green", "blue", "big", "small", "apple", "pear", "dog", "cat", "star"]
CLASSES = ["apple", "pear", "dog", "cat", "star"]
PALETTE = [(255, 0, 0), (0, 255, 0), (160, 80, 0), (128, 128, 128), (255, 255, 0)]
LATENT_CHANNELS = 4
RESOLUTION = 16


def randomise(network: torch.nn.Module) -> None:
    """Fill what starts at zero: it would hide everything behind it."""
    with torch.no_grad():
        for parameter in network.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)


def _parts(context: int | None, concat: int = 0) -> dict[str, object]:
    """First stage, UNet and scheduler, for a context of `context` channels and `concat` channels beside the latents."""
    vae = AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=RESOLUTION,
    )
    unet = UNet2DConditionModel(
        in_channels=LATENT_CHANNELS + concat,
        out_channels=LATENT_CHANNELS,
        sample_size=RESOLUTION // 2,
        block_out_channels=(8, 16),
        layers_per_block=1,
        attention_levels=(True, True),
        cross_attention_dim=context,
        num_attention_heads=2,
        norm_num_groups=4,
    )
    randomise(unet)
    scheduler = DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear")
    return {"vae": vae, "unet": unet, "scheduler": scheduler}


def _text(tmp_path: Path) -> dict[str, object]:
    """A text encoder that knows WORDS, and its tokenizer."""
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL, *WORDS]))
    encoder = LDMTextEncoder(
        vocab_size=len(SPECIAL) + len(WORDS),
        max_position_embeddings=12,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
    )
    tokenizer = load_tokenizer(tmp_path / "vocab.txt", 12)
    return {"text_encoder": encoder, "tokenizer": tokenizer}


def tiny_text_to_image(tmp_path: Path) -> Path:
    """A text-to-image model of 16x16 pixels that knows WORDS."""
    torch.manual_seed(0)
    text = _text(tmp_path)
    TextToImagePipeline(**text, **_parts(16)).save_pretrained(tmp_path / "text")
    return tmp_path / "text"


def tiny_text_inpaint(tmp_path: Path) -> Path:
    """An inpainting model that takes prompts of WORDS, too."""
    torch.manual_seed(0)
    InpaintPipeline(**_text(tmp_path), **_parts(16, LATENT_CHANNELS + 1)).save_pretrained(tmp_path / "text-inpaint")
    return tmp_path / "text-inpaint"


def tiny_text_super_resolution(tmp_path: Path) -> Path:
    """A super-resolution model that takes prompts of WORDS, too."""
    torch.manual_seed(0)
    SuperResolutionPipeline(**_text(tmp_path), **_parts(16, 3)).save_pretrained(tmp_path / "text-super")
    return tmp_path / "text-super"


def tiny_unconditional(tmp_path: Path) -> Path:
    """An unconditional model of 16x16 pixels."""
    torch.manual_seed(0)
    UnconditionalPipeline(**_parts(None)).save_pretrained(tmp_path / "unconditional")
    return tmp_path / "unconditional"


def tiny_class_to_image(tmp_path: Path) -> Path:
    """A class-conditional model of 16x16 pixels that knows CLASSES, and a null class after them."""
    torch.manual_seed(0)
    embedder = ClassEmbedder(num_classes=len(CLASSES) + 1, embed_dim=16, null_class=len(CLASSES), class_names=CLASSES)
    ClassToImagePipeline(class_embedder=embedder, **_parts(16)).save_pretrained(tmp_path / "class")
    return tmp_path / "class"


def tiny_inpaint(tmp_path: Path) -> Path:
    """An inpainting model: the masked image's latents and the mask lie beside the latents."""
    torch.manual_seed(0)
    InpaintPipeline(**_parts(None, concat=LATENT_CHANNELS + 1)).save_pretrained(tmp_path / "inpaint")
    return tmp_path / "inpaint"


def tiny_super_resolution(tmp_path: Path) -> Path:
    """A super-resolution model that doubles the sides of images."""
    torch.manual_seed(0)
    SuperResolutionPipeline(**_parts(None, concat=3)).save_pretrained(tmp_path / "super")
    return tmp_path / "super"


def tiny_layout_to_image(tmp_path: Path) -> Path:
    """A layout model of 16x16 pixels: up to four objects of CLASSES."""
    torch.manual_seed(0)
    tokenizer = LayoutTokenizer(class_names=CLASSES, num_tokens=64, max_objects=4)
    encoder = LDMTextEncoder(
        vocab_size=64,
        max_position_embeddings=tokenizer.length,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        attention_head_dim=8,
    )
    pipe = LayoutToImagePipeline(layout_encoder=encoder, tokenizer=tokenizer, **_parts(16))
    pipe.save_pretrained(tmp_path / "layout")
    return tmp_path / "layout"


def tiny_hybrid(tmp_path: Path) -> Path:
    """A model of classes and layouts of CLASSES at once, of 16x16 pixels."""
    parts = {
        name: DiffusionPipeline.from_pretrained(make(tmp_path)).components
        for name, make in (("class", tiny_class_to_image), ("layout", tiny_layout_to_image))
    }
    shared = {name: parts["class"][name] for name in ("vae", "unet", "scheduler", "class_embedder")}
    layout = {"layout_encoder": parts["layout"]["layout_encoder"], "layout_tokenizer": parts["layout"]["tokenizer"]}
    pipe = HybridPipeline(**shared, **layout, conditions="class-to-image, layout-to-image")
    pipe.save_pretrained(tmp_path / "hybrid")
    return tmp_path / "hybrid"


def tiny_semantic_to_image(tmp_path: Path) -> Path:
    """A model of semantic maps of CLASSES, whose colours are PALETTE."""
    torch.manual_seed(0)
    encoder = SegmentationEncoder(
        in_channels=len(CLASSES), out_channels=3, num_stages=1, class_names=CLASSES, palette=PALETTE
    )
    pipe = SemanticToImagePipeline(segmentation_encoder=encoder, **_parts(None, concat=3))
    pipe.save_pretrained(tmp_path / "semantic")
    return tmp_path / "semantic"


def text_to_image(tmp_path: Path) -> TextToImagePipeline:
    """The text-to-image model, loaded."""
    return _quiet(TextToImagePipeline.from_pretrained(tiny_text_to_image(tmp_path)))


def unconditional(tmp_path: Path) -> UnconditionalPipeline:
    """The unconditional model, loaded."""
    return _quiet(UnconditionalPipeline.from_pretrained(tiny_unconditional(tmp_path)))


def _quiet(pipe):
    pipe.set_progress_bar_config(disable=True)
    return pipe


def write_clip_tokenizer(tmp_path: Path) -> CLIPTokenizer:
    """A byte-pair tokenizer of single letters, of the kind that Stable Diffusion has."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "clip.json").write_text(json.dumps({token: number for number, token in enumerate(tokens)}))
    (tmp_path / "clip.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(
        vocab=str(tmp_path / "clip.json"),
        merges=str(tmp_path / "clip.txt"),
        model_max_length=16,
        pad_token="<|endoftext|>",
    )
