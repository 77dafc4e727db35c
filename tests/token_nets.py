"""Texts as mappings of token ids, and a small network as those of transformers are: by name, with a mask, `.logits`."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

VOCABULARY = 40


class Texts(Dataset):
    """Items of several lengths with a label each; the two classes use words of their own."""

    def __init__(self, n, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.items = []
        for i in range(n):
            length = int(torch.randint(2, 9, (), generator=generator))
            words = torch.randint(1, 25, (length,), generator=generator) + 15 * (i % 2)
            self.items.append({"input_ids": words.tolist(), "label": i % 2})

    def __len__(self):
        return len(self.items)

    def __getitem__(self, row):
        return self.items[row]

    @property
    def labels(self):
        return torch.tensor([item["label"] for item in self.items])


def pad(items):
    """Put items together, with zeros behind the shorter ones and a mask that says where."""
    longest = max(len(item["input_ids"]) for item in items)
    ids = torch.zeros(len(items), longest, dtype=torch.int64)
    mask = torch.zeros(len(items), longest, dtype=torch.int64)
    for i, item in enumerate(items):
        ids[i, : len(item["input_ids"])] = torch.tensor(item["input_ids"])
        mask[i, : len(item["input_ids"])] = 1
    return {"input_ids": ids, "attention_mask": mask}


@dataclass
class Answer:
    """What such networks answer with."""

    logits: Tensor
    loss: Tensor | None = None


class TokenNet(nn.Module):
    """The mean of the embeddings of a text's words; it counts how often it was given labels."""

    def __init__(self, n_classes, dropout=0.1):
        super().__init__()
        self.words = nn.Embedding(VOCABULARY, 8)
        self.dropout = nn.Dropout(dropout)
        self.hidden, self.head = nn.Linear(8, 6), nn.Linear(6, n_classes)
        self.n_labels_seen = 0

    def forward(self, input_ids, attention_mask, labels=None, label=None):
        self.n_labels_seen += (labels is not None) + (label is not None)
        mask = attention_mask.unsqueeze(2).to(self.words.weight.dtype)
        words = self.dropout(self.words(input_ids)) * mask
        return Answer(self.head(self.hidden(words.sum(1) / mask.sum(1)).relu()))
