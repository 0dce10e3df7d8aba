"""One pipeline for each task, and what they share."""

from latentdiff.compat import import_diffusers

import_diffusers()
