"""The linear probe: how much a few labels tell on frozen features, always beside the arms it must beat.

Protocol: standardise on the drawn labels, then logistic regression with C = 0.1; accuracy on a test set of other
persons. The same draws of labels serve every arm. `supervised` is the same network trained end to end on the drawn
labels alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

from bract.encoders.build import build
from bract.encoders.encoder import Encoder
from bract.encoders.spec import EncoderSpec
from bract.samples import Labelled
from bract.value import strict

Features = NDArray[np.float32]

_BATCH = 64
_UPDATES = 150
_LEARNING_RATE = 1e-3


@strict
@dataclass(frozen=True)
class Score:
    """Test accuracies over the draws of labels, in the order of the draws."""

    accuracies: Annotated[tuple[float, ...], Field(min_length=2)]

    @property
    def mean(self) -> float:
        """Their mean."""
        return fmean(self.accuracies)

    @property
    def sd(self) -> float:
        """Their standard deviation (n − 1)."""
        return stdev(self.accuracies)


@strict
@dataclass(frozen=True)
class ProbeRow:
    """The four arms at one number of labels; draw i is the same labels in every arm.

    Attributes:
        random: features of the untrained network, initialised anew for every draw, for one may be lucky.
        raw: the encoder's inputs themselves.
        ssl: features of the pretrained network.
        supervised: the same network, initialised as in `random`, trained end to end on the drawn labels alone.
    """

    labels: int
    random: Score
    raw: Score
    ssl: Score
    supervised: Score

    @property
    def gain(self) -> Score:
        """Ssl − random, draw by draw."""
        return Score(tuple(a - b for a, b in zip(self.ssl.accuracies, self.random.accuracies, strict=True)))


@strict
@dataclass(frozen=True)
class ProbeReport:
    """One row for each number of labels."""

    test_size: int
    rows: tuple[ProbeRow, ...]


def probe(
    encoder: Encoder,
    spec: EncoderSpec,
    initial_seed: int,
    pool: Labelled,
    test: Labelled,
    *,
    counts: Sequence[int] = (100, 1000),
    draws: int = 10,
    seed: int = 0,
) -> ProbeReport:
    """Judge a pretrained encoder by what few labels tell on its features.

    Args:
        encoder: the pretrained one.
        spec: its form, from which the random and the supervised arms are built.
        initial_seed: the seed its pretraining began from; draw i of the untrained arms begins from this plus i.
        pool: labelled persons to draw from, `draws` times for each of `counts`.
        test: other labelled persons.
        counts: numbers of labels.
        draws: label draws, at least two.
        seed: of the draws.

    Raises:
        ValueError: a count exceeds the pool, or a draw met only one class.
    """
    untrained = [_features_of(build(spec, initial_seed + draw), pool, test) for draw in range(draws)]
    arms = {
        "random": untrained,
        "raw": [(_flat(pool.inputs), _flat(test.inputs))] * draws,
        "ssl": [_features_of(encoder, pool, test)] * draws,
    }
    rows = []
    for count in counts:
        picks = [
            np.random.default_rng([seed, count, i]).choice(len(pool.labels), count, replace=False) for i in range(draws)
        ]
        labels = [pool.labels[pick] for pick in picks]
        scores = {
            arm: Score(
                tuple(
                    _linear(learn[pick], known, judge, test.labels)
                    for (learn, judge), pick, known in zip(pairs, picks, labels, strict=True)
                )
            )
            for arm, pairs in arms.items()
        }
        supervised = Score(
            tuple(_supervised(spec, initial_seed + draw, pool, pick, test) for draw, pick in enumerate(picks))
        )
        rows.append(ProbeRow(count, scores["random"], scores["raw"], scores["ssl"], supervised))
    return ProbeReport(len(test.labels), tuple(rows))


def features(encoder: Encoder, inputs: Features) -> Features:
    """Frozen features (N, dim) of inputs (N, …)."""
    encoder.eval()
    with torch.no_grad():
        found = [
            encoder.features(torch.from_numpy(part)).numpy() for part in np.array_split(inputs, -(-len(inputs) // 1024))
        ]
    return np.concatenate(found)


def _features_of(encoder: Encoder, pool: Labelled, test: Labelled) -> tuple[Features, Features]:
    return features(encoder, pool.inputs), features(encoder, test.inputs)


def _linear(learn: Features, labels: NDArray[np.int64], judge: Features, truth: NDArray[np.int64]) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000))
    return float(model.fit(learn, labels).score(judge, truth))


def _supervised(spec: EncoderSpec, initial_seed: int, pool: Labelled, pick: NDArray[np.int64], test: Labelled) -> float:
    """Train encoder and head on the drawn labels by Adam, a fixed number of updates."""
    encoder = build(spec, initial_seed)
    head = nn.Linear(encoder.dim, int(pool.labels.max()) + 1)
    with torch.no_grad():
        nn.init.zeros_(head.weight)
        nn.init.zeros_(head.bias)
    descent = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=_LEARNING_RATE, weight_decay=0.05)
    inputs, labels = torch.from_numpy(pool.inputs[pick]), torch.from_numpy(pool.labels[pick])
    generator = torch.Generator().manual_seed(initial_seed)
    for _ in range(_UPDATES):
        some = torch.randint(len(labels), (_BATCH,), generator=generator)
        loss = functional.cross_entropy(head(encoder.features(inputs[some])), labels[some])
        descent.zero_grad()
        torch.autograd.backward(loss)
        descent.step()
    with torch.no_grad():
        guesses = head(torch.from_numpy(features(encoder, test.inputs))).argmax(1).numpy()
    return float((guesses == test.labels).mean())


def _flat(inputs: Features) -> Features:
    return inputs.reshape(len(inputs), -1)
