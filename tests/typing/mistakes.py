"""What users get wrong, for type checkers alone: both find an error in every line that says so, and in no other."""

import torch

import latentdiff
from latentdiff import DDIMScheduler, SamplingOptions, TextToImagePipeline, UnconditionalPipeline

misspelled = latentdiff.TextToImagePipelin  # error: a misspelled name
pipe = TextToImagePipeline.from_pretrained("builtin:emoji")
pipe("a cat", num_inference_step=25)  # error: a misspelled option of every call
pipe("a cat", guidance_scal=5.0)  # error: a misspelled option of this task
pipe.generate_from(pipe.encode_prompt("a cat"))  # error: a tensor is no Conditioning
pipe(3)  # error: a number is no prompt
pipe("a cat", seed="7")  # error: a string is no seed
pipe("a cat", output_type="pill")  # error: there is no such output type
pipe("a cat", output_type="pt").images[0].save("cat.png")  # error: a tensor can't be saved so
shape = pipe("a cat").images.shape  # error: a list of images has no shape
pipe.set_scheduler(3)  # error: a number is no scheduler
UnconditionalPipeline(vae=torch.zeros(3), unet=pipe.unet, scheduler=DDIMScheduler())  # error: a tensor is no network
UnconditionalPipeline(vae=pipe.vae, unet=pipe.unet)  # error: the scheduler is missing
SamplingOptions(steps=3)  # error: there is no such option
SamplingOptions().eta = 0.5  # error: options are frozen
