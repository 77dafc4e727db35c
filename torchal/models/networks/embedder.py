"""A classifier made of networks, whose embedding comes with its logits in one forward pass."""

from __future__ import annotations

from abc import abstractmethod
from contextlib import ExitStack
from typing import Any

import torch
from sklearn.base import TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor, nn

from torchal._batch import Rows
from torchal.embedding.capture import capture, has_embedding
from torchal.models.base import ProbabilityMixin, TensorClassifier, as_answer
from torchal.protocols import Outputs


class EmbeddingClassifier(ProbabilityMixin, TransformerMixin, TensorClassifier):  # type: ignore[misc]
    """Base of the classifiers made of one network or more; it reads data sets and mapped files batch by batch."""

    takes_inputs = True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = []  # the embedding has the network's dtype
        return tags

    @abstractmethod
    def _networks(self) -> list[tuple[nn.Module, str | None]]:
        """Return the fitted networks that make the logits, and the name of the layer of each one's embedding."""

    def outputs(self, X: Any, *, most_features: int | None = None) -> Outputs:
        """Return embedding and logits of one forward pass.

        Args:
            X: (n, ...).
            most_features: leave the embedding out if it has more numbers than this, n times D, or if there is none.

        Returns:
            features (n, D) as of `transform`, or None where they are left out; logits (n, C).

        Raises:
            CapabilityError: the embedding must not be left out, and there is none: see `transform`.
        """
        check_is_fitted(self, "module_")
        optional = most_features is not None
        n_rows = len(X) if optional else 0
        networks = self._networks()
        # no hook where nobody reads what it takes
        keep = most_features != 0 and (not optional or all(has_embedding(*network) for network in networks))
        with ExitStack() as stack:
            embeddings = [stack.enter_context(capture(*network)) for network in networks if keep]

            def both(rows: Rows) -> tuple[Tensor, ...]:
                nonlocal keep
                logits = self._logits(rows)
                keep = keep and (not optional or all(embedding.is_there() for embedding in embeddings))
                if not keep:
                    return (logits,)
                parts = [embedding() for embedding in embeddings]
                features = (parts[0] if len(parts) == 1 else torch.cat(parts, 1)).to(logits.dtype)
                keep = most_features is None or n_rows * features.shape[1] <= most_features
                return (logits, features) if keep else (logits,)

            logits, *features = self._by_chunk(X, both)
        return Outputs(as_answer(X, features[0]) if features else None, as_answer(X, logits))

    def transform(self, X: Any) -> Any:
        """Return the embedding: what goes into the last linear layer, or comes out of the layer that is named.

        Shapes:
            X: (n, ...).

        Returns:
            (n, D), of several networks side by side.

        Raises:
            CapabilityError: no layer is named, and a network has no linear layer, or its last one does not give the
                logits.
            ConfigError: it has no layer of that name.
        """
        return self.outputs(X).features
