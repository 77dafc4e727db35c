"""Laplace's approximation at a last layer, row by row."""

import torch


def lambdas(features, weight, bias):
    """Return each row's input, with a 1 where there is a bias, and its Hessian (C, C) of the log-loss in the logits."""
    for x in features:
        logits = weight @ x + (0 if bias is None else bias)
        phi = x if bias is None else torch.cat([x, x.new_ones(1)])
        if len(logits) == 1:
            p = logits.sigmoid()
            yield phi, (p * (1 - p)).view(1, 1)
        else:
            p = logits.softmax(0)
            yield phi, p.diag() - torch.outer(p, p)


def exact_precision(features, weight, bias, weights, prior):
    """Return the precision (C E, C E) for a prior precision of each input (E,)."""
    total = torch.kron(torch.eye(len(weight), dtype=prior.dtype), prior.diag())
    for w, (phi, of_logits) in zip(weights, lambdas(features, weight, bias), strict=True):
        total = total + w * torch.kron(of_logits, torch.outer(phi, phi))
    return total


def factored_precision(features, weight, bias, weights, prior):
    """Return the precision with the mean of the products taken for the product of the means."""
    pairs = list(lambdas(features, weight, bias))
    of_logits = sum(w * one for w, (_, one) in zip(weights, pairs, strict=True))
    of_inputs = sum(w * torch.outer(phi, phi) for w, (phi, _) in zip(weights, pairs, strict=True)) / weights.sum()
    return torch.kron(of_logits, of_inputs) + torch.kron(torch.eye(len(weight), dtype=prior.dtype), prior.diag())
