"""Statistics of learning curves: plain arrays in, plain numbers and dicts out."""
