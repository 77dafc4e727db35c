"""What many runs come to: read from their folders, summed up in plain values, and written as a page and as tables."""
