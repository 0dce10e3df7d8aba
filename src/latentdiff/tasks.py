"""THE table of tasks: what the package does, and what each part of it has to know of each task."""

from __future__ import annotations

from dataclasses import dataclass

NUM_INFERENCE_STEPS = 50  # of a solver where nobody says how many: in Python, on the command line, at validation
TEXT_GUIDANCE_SCALE = 5.0
CLASS_GUIDANCE_SCALE = 3.0
AUTOGUIDANCE_SCALE = 2.0


@dataclass(frozen=True)
class TaskSpec:
    """One task of the paper.

    Attributes:
        name: What recipes, the hub and messages call it.
        pipeline: Its pipeline, as "module:Class".
        summary: What a model of it does, as model cards say it: "A latent diffusion model that ...".
        command: The subcommand of `latentdiff` that runs it; None for a task that is sampled in Python alone.
        builtin: The model in the package that the subcommand uses unless it is given another; None without one.
        conditioner: How its condition is trained, as "module:Class"; None for a task that is sampling alone.
        encoder: The component that makes its condition, if one is learned.
        tokenizer: What to give where a checkpoint lacks the tokenizer that the encoder needs; None if it needs none.
        original_encoders: The classes of the original's `cond_stage_config` that stand for it.
        original_hybrid: The class of the original's models that see its channels and a prompt at once; None if there is
            none.
        concat_keys: The names that this class has for these channels, in the order in which they are concatenated.
        stock_pipelines: The pipelines of diffusers whose folders are of it.
        hub_tag: The hub's name of the task, its `pipeline_tag`.
        call: How its pipeline is called in the snippet of a model card, None where that takes more than a line.
        guidance_scale: The strength of classifier-free guidance of a model that knows the null condition; None for a
            task without a condition that can be dropped, but for a prompt where its models take one.
    """

    name: str
    pipeline: str
    summary: str
    command: str | None
    builtin: str | None = None
    conditioner: str | None = None
    encoder: str | None = None
    tokenizer: str | None = None
    original_encoders: tuple[str, ...] = ()
    original_hybrid: str | None = None
    concat_keys: tuple[str, ...] = ()
    stock_pipelines: tuple[str, ...] = ()
    hub_tag: str = "image-to-image"
    call: str | None = None
    guidance_scale: float | None = None

    @property
    def pipeline_class(self) -> str:
        """The name of the pipeline's class, as `model_index.json` has it."""
        return self.pipeline.partition(":")[2]


_CONDITIONERS = "latentdiff.training.diffusion.conditioners"

TASKS: dict[str, TaskSpec] = {
    spec.name: spec
    for spec in (
        TaskSpec(
            name="text-to-image",
            pipeline="latentdiff.pipelines.text_to_image:TextToImagePipeline",
            summary="makes images for prompts",
            command="generate",
            builtin="builtin:emoji",
            conditioner=f"{_CONDITIONERS}.text:TextConditioner",
            encoder="text_encoder",
            tokenizer="such as latentdiff.models.tokenizer.load_tokenizer('vocab.txt', 77)",
            original_encoders=("BERTEmbedder", "FrozenCLIPEmbedder", "FrozenOpenCLIPEmbedder"),
            stock_pipelines=("StableDiffusionPipeline", "LDMTextToImagePipeline"),
            hub_tag="text-to-image",
            call="pipe({prompt}, seed=0)",
            guidance_scale=TEXT_GUIDANCE_SCALE,
        ),
        TaskSpec(
            name="unconditional",
            pipeline="latentdiff.pipelines.unconditional:UnconditionalPipeline",
            summary="makes images like those that it was trained on",
            command="sample",
            builtin="builtin:emoji-unconditional",
            conditioner=f"{_CONDITIONERS}.unconditional:NoCondition",
            original_encoders=("__is_unconditional__",),
            stock_pipelines=("LDMPipeline",),
            hub_tag="unconditional-image-generation",
            call="pipe(seed=0)",
        ),
        TaskSpec(
            name="class-to-image",
            pipeline="latentdiff.pipelines.class_to_image:ClassToImagePipeline",
            summary="makes images of classes",
            command="class",
            builtin="builtin:emoji-class",
            conditioner=f"{_CONDITIONERS}.classes:ClassConditioner",
            encoder="class_embedder",
            original_encoders=("ClassEmbedder",),
            hub_tag="unconditional-image-generation",
            guidance_scale=CLASS_GUIDANCE_SCALE,
        ),
        TaskSpec(
            name="layout-to-image",
            pipeline="latentdiff.pipelines.layout_to_image:LayoutToImagePipeline",
            summary="makes images of objects in boxes",
            command="layout",
            builtin="builtin:emoji-layout",
            conditioner=f"{_CONDITIONERS}.layout:LayoutConditioner",
            encoder="layout_encoder",
            tokenizer="a latentdiff.LayoutTokenizer with the classes that the model was trained on",
            original_encoders=("BERTEmbedder(use_tokenizer=False)",),
            guidance_scale=1.0,  # the published model never saw an empty layout
        ),
        TaskSpec(
            name="semantic-to-image",
            pipeline="latentdiff.pipelines.semantic_to_image:SemanticToImagePipeline",
            summary="makes images of label maps",
            command="semantic",
            builtin="builtin:emoji-semantic",
            conditioner=f"{_CONDITIONERS}.semantic:SemanticConditioner",
            encoder="segmentation_encoder",
            original_encoders=("SpatialRescaler",),
        ),
        TaskSpec(
            name="super-resolution",
            pipeline="latentdiff.pipelines.super_resolution:SuperResolutionPipeline",
            summary="enlarges images",
            command="upscale",
            builtin="builtin:emoji-upscale",
            conditioner=f"{_CONDITIONERS}.super_resolution:SuperResolutionConditioner",
            original_encoders=("Identity",),
            original_hybrid="LatentUpscaleFinetuneDiffusion",
            concat_keys=("lr",),
            stock_pipelines=("LDMSuperResolutionPipeline",),
        ),
        TaskSpec(
            name="inpaint",
            pipeline="latentdiff.pipelines.inpaint:InpaintPipeline",
            summary="fills holes in images",
            command="inpaint",
            builtin="builtin:emoji-inpaint",
            conditioner=f"{_CONDITIONERS}.inpaint:InpaintConditioner",
            original_encoders=("__is_first_stage__",),
            original_hybrid="LatentInpaintDiffusion",
            concat_keys=("mask", "masked_image"),
            stock_pipelines=("StableDiffusionInpaintPipeline",),
        ),
        TaskSpec(
            name="hybrid",
            pipeline="latentdiff.pipelines.hybrid:HybridPipeline",
            summary="makes images of several conditions at once",
            command=None,
            conditioner=f"{_CONDITIONERS}.hybrid:HybridConditioner",
        ),
        TaskSpec(
            name="image-to-image",
            pipeline="latentdiff.pipelines.image_to_image:ImageToImagePipeline",
            summary="changes images",
            command="img2img",
            builtin="builtin:emoji",
        ),
    )
}


def task_of_pipeline(class_name: str) -> TaskSpec | None:
    """The task of a pipeline class of this package or of diffusers, by its name; None if it is no task's."""
    for spec in TASKS.values():
        if class_name in (spec.pipeline_class, *spec.stock_pipelines):
            return spec
    return None


def task_of_hybrid(class_name: str) -> TaskSpec | None:
    """The task whose models with a text encoder are of this class of the original; None if it is no task's."""
    return next((spec for spec in TASKS.values() if spec.original_hybrid == class_name), None)


def task_of_original_encoder(class_name: str) -> TaskSpec | None:
    """The task that a class of the original's `cond_stage_config` stands for; None if it stands for none."""
    return next((spec for spec in TASKS.values() if class_name in spec.original_encoders), None)
