"""Any `nn.Module` as a classifier: `TorchClassifier`, its training loop, ensembles, dropout draws and some networks.

What is solved rather than trained lives next door, in `torchal.models.classical`.
"""
