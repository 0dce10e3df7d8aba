"""The table of commands, one a file: a command's name to "module:attribute", which is imported when it is called for.

Each is a function, whose parameters are the command's flags and whose docstring is the text of its --help. Its first
line stands here too, since the list of commands is shown without importing them.
"""

IMAGE_COMMANDS = {
    "generate": ("latentdiff.cli.commands.generate:generate", "Make images of prompts."),
    "sample": ("latentdiff.cli.commands.sample:sample_many", "Make many images by seed, such as 50000 for FID."),
    "class": ("latentdiff.cli.commands.class_:class_", "Make images of classes."),
    "layout": ("latentdiff.cli.commands.layout:layout", "Make images of objects in boxes."),
    "semantic": (
        "latentdiff.cli.commands.semantic:semantic",
        "Make images of label maps, which have a class at every pixel.",
    ),
    "upscale": ("latentdiff.cli.commands.upscale:upscale", "Enlarge images with a super-resolution model."),
    "inpaint": ("latentdiff.cli.commands.inpaint:inpaint", "Fill holes in images."),
    "img2img": ("latentdiff.cli.commands.img2img:img2img", "Change images, all of each or under a mask."),
}
MODEL_COMMANDS = {
    "bench": (
        "latentdiff.cli.commands.bench:bench",
        "Measure a model: samples and steps a second, the first image, memory, FLOPs, and its quality against time.",
    ),
    "convert": ("latentdiff.cli.commands.convert:convert", "Convert between checkpoint forms."),
    "tune-steps": (
        "latentdiff.cli.commands.tune_steps:tune_steps",
        "Find the timesteps of a number of steps that suit a model, for --steps tuned:N.",
    ),
    "ema": (
        "latentdiff.cli.commands.ema:ema",
        "Average the weights of a training run over another width, without training anew.",
    ),
    "info": ("latentdiff.cli.commands.info:info", "Show what a model, a folder of latents or an image is."),
    "encode": (
        "latentdiff.cli.commands.encode:encode",
        "Encode a data set to latents, which training reads by latents_dir in place of encoding the images itself.",
    ),
}
DEMO_COMMANDS = {
    "demo": (
        "latentdiff.cli.commands.demo:demo",
        "Open a page on which images are made of prompts, classes, boxes, label maps, masks and pictures.",
    ),
}
TRAIN_COMMANDS = {  # with what each trains, since importing the recipes takes a while
    "first-stage": ("latentdiff.cli.commands.train:first_stage", "the autoencoder that makes the latent space"),
    "diffusion": ("latentdiff.cli.commands.train:diffusion", "the diffusion model in the latent space"),
    "classifier": ("latentdiff.cli.commands.train:classifier", "the classifier of noisy latents that guides the model"),
}
STUDY_COMMAND = ("latentdiff.cli.commands.study:app", "Ask people which of two images they prefer.")
SCHEMA_COMMAND = "latentdiff.cli.commands.train:schema"
RECIPES_COMMAND = "latentdiff.cli.commands.train_recipes:train_recipes"
START_COMMANDS = {
    "init": (
        "latentdiff.cli.commands.init:init",
        "Write the recipes of a first stage and a diffusion model for your images, NAME-1-... and NAME-2-....yaml.",
    ),
}
DATA_COMMANDS = {
    "check": (
        "latentdiff.cli.commands.data:check",
        "Read every image, label map and box of a recipe's data, or of a folder, once.",
    ),
}
EVALUATE_COMMANDS = {
    "samples": (
        "latentdiff.cli.commands.evaluate.samples:samples",
        "Compare samples with a reference: FID, sFID, KID, Inception score, precision and recall, "
        "density and coverage.",
    ),
    "first-stage": (
        "latentdiff.cli.commands.evaluate.first_stage:first_stage",
        "Reconstruct images with a model's first stage, and compare them: rFID, PSNR, SSIM, MS-SSIM, LPIPS, PSIM, "
        "codes.",
    ),
    "pairs": (
        "latentdiff.cli.commands.evaluate.pairs:pairs",
        "Compare images with their originals, one by one: PSNR, SSIM, MS-SSIM, LPIPS, PSIM; and as sets, if asked for.",
    ),
    "neighbours": (
        "latentdiff.cli.commands.evaluate.neighbours:neighbours",
        "Show samples beside their nearest training images, and measure how many are memorised.",
    ),
}
