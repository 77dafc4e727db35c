from torchal.report.coordinates import map_coordinates
