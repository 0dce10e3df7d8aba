"""Pictures of what models take and make. All functions take and return Pillow images."""

from latentdiff.viz.boxes import draw_boxes
from latentdiff.viz.denoising import DenoisingRecorder
from latentdiff.viz.drawing import class_colour
from latentdiff.viz.grid import image_grid, side_by_side
from latentdiff.viz.label_maps import draw_label_map

__all__ = ["DenoisingRecorder", "class_colour", "draw_boxes", "draw_label_map", "image_grid", "side_by_side"]
