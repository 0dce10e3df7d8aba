"""The table of commands, one a file: a command's name to "module:attribute", which is imported when it is called for.

Each is a function, whose parameters are the command's flags and whose docstring is the text of its --help.
"""

IMAGE_COMMANDS = {
    "generate": "latentdiff.cli.commands.generate:generate",
    "sample": "latentdiff.cli.commands.sample:sample",
    "class": "latentdiff.cli.commands.class_:class_",
    "layout": "latentdiff.cli.commands.layout:layout",
    "semantic": "latentdiff.cli.commands.semantic:semantic",
    "upscale": "latentdiff.cli.commands.upscale:upscale",
    "inpaint": "latentdiff.cli.commands.inpaint:inpaint",
    "img2img": "latentdiff.cli.commands.img2img:img2img",
}
MODEL_COMMANDS = {
    "convert": "latentdiff.cli.commands.convert:convert",
    "info": "latentdiff.cli.commands.info:info",
}
TRAIN_COMMANDS = {  # with what each trains, since importing the recipes takes a while
    "first-stage": ("latentdiff.cli.commands.train:first_stage", "the autoencoder that makes the latent space"),
    "diffusion": ("latentdiff.cli.commands.train:diffusion", "the diffusion model in the latent space"),
    "classifier": ("latentdiff.cli.commands.train:classifier", "the classifier of noisy latents that guides the model"),
}
SCHEMA_COMMAND = "latentdiff.cli.commands.train:schema"
DATA_COMMANDS = {"check": "latentdiff.cli.commands.data:check"}
EVALUATE_COMMANDS = {
    "samples": "latentdiff.cli.commands.evaluate:samples",
    "first-stage": "latentdiff.cli.commands.evaluate:first_stage",
    "pairs": "latentdiff.cli.commands.evaluate:pairs",
}
