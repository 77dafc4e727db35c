"""Pages of the documentation that code writes, so that they are never behind it."""
