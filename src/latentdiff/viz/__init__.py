"""Pictures of what models take and make: Pillow images in, Pillow images out."""

from latentdiff.viz.boxes import draw_boxes
from latentdiff.viz.colours import class_colour
from latentdiff.viz.denoising import DenoisingRecorder
from latentdiff.viz.grid import image_grid, side_by_side
from latentdiff.viz.label_maps import draw_label_map

__all__ = ["DenoisingRecorder", "class_colour", "draw_boxes", "draw_label_map", "image_grid", "side_by_side"]
