"""Which diffusers scheduler each of ours answers to, with the options that make it the same solver."""

import diffusers

COUNTERPARTS = {
    "ddpm": (diffusers.DDPMScheduler, {"clip_sample": False}),
    "ddim": (diffusers.DDIMScheduler, {"clip_sample": False}),
    "plms": (diffusers.PNDMScheduler, {"skip_prk_steps": True}),
    "euler": (diffusers.EulerDiscreteScheduler, {}),
    "euler_ancestral": (diffusers.EulerAncestralDiscreteScheduler, {}),
    "heun": (diffusers.HeunDiscreteScheduler, {}),
    "dpmpp_2m": (diffusers.DPMSolverMultistepScheduler, {}),
    "dpmpp_2m_sde": (diffusers.DPMSolverMultistepScheduler, {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": (diffusers.UniPCMultistepScheduler, {}),
    "deis": (diffusers.DEISMultistepScheduler, {}),
    "sa_solver": (diffusers.SASolverScheduler, {}),
    "lcm": (diffusers.LCMScheduler, {}),
    "tcd": (diffusers.TCDScheduler, {}),
}
MODEL = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
KARRAS = {"euler", "heun", "dpmpp_2m", "dpmpp_2m_sde", "unipc", "deis", "sa_solver"}
ENDS_WITH_NOISE = {"deis", "sa_solver", "tcd"}
"""Those whose counterpart lands on the level of timestep 0; ours, as our others, on noise-free images."""
