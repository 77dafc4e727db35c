"""What a person looks at before labeling: a map of the pool, and a page of the rows that are asked for."""

from torchal.report.coordinates import MapCoordinates, map_coordinates
from torchal.report.map import as_png, draw_map
from torchal.report.page import write_page

__all__ = ["MapCoordinates", "as_png", "draw_map", "map_coordinates", "write_page"]
