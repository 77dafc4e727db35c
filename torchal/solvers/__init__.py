"""Optimizers of classical models: Newton steps, interior points, kernel systems; tensors in, tensors out.

Scikit-learn's interface and the choice of C stand above, in `torchal.models.classical`; no class label gets this far.
"""
