"""Linear and kernel classifiers, fitted to the optimum by `torchal.solvers`, whose penalty is tuned inside.

Networks and their training loop live next door, in `torchal.models.networks`.
"""
