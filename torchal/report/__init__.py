"""What a person looks at before labeling: a map of the pool, and a page of the rows that are asked for."""

from torchal.report.coordinates import MapCoordinates, map_coordinates
from torchal.report.map import as_png, draw_map

__all__ = ["MapCoordinates", "as_png", "draw_map", "map_coordinates"]
