"""The command `torchal`: which rows of a file to label next, without a line of Python."""
