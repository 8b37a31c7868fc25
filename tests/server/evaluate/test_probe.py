"""The probe judges four arms on the same draws of labels, and tells a better encoder from a worse one."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from bract.encoders.build import build as build_encoder
from bract.encoders.spec import TableSpec
from bract.objectives.build import build
from bract.objectives.spec import MaskedTableSpec
from bract.samples import Labelled, Parts, adult_parts
from bract.value import decode, encode
from bract_server.evaluate.probe import ProbeReport, Score, features, probe

SPEC = TableSpec("table", "adult", dim=24, depth=2)


@pytest.fixture(scope="module")
def adult() -> Parts:
    return adult_parts(1, 0)


def test_an_untrained_encoder_gains_nothing_over_its_own_initialisation(adult: Parts) -> None:
    report = probe(build_encoder(SPEC, 3), SPEC, 3, adult.pool, adult.test, counts=(60,), draws=2)
    (row,) = report.rows
    assert row.gain.accuracies[0] == 0.0
    assert row.raw != row.random
    assert decode(ProbeReport, encode(report)) == report


def test_the_report_repeats_and_another_seed_draws_other_labels(adult: Parts) -> None:
    encoder = build_encoder(SPEC, 3)
    one, same, other = (
        probe(encoder, SPEC, 3, adult.pool, adult.test, counts=(60,), draws=2, seed=seed) for seed in (0, 0, 1)
    )
    assert one == same
    assert one.rows[0].raw != other.rows[0].raw


@pytest.mark.slow
def test_plain_pretraining_beats_random_initialisation_on_few_labels(adult: Parts) -> None:
    objective = build(SPEC, MaskedTableSpec("masked-table"), 3)
    rows = torch.from_numpy(encode_site(adult))
    generator = torch.Generator().manual_seed(0)
    descent = torch.optim.Adam(objective.parameters(), lr=4e-3)
    for _ in range(300):
        some = rows[torch.randint(len(rows), (256,), generator=generator)]
        loss = objective.record_loss(some, objective.draw(256, generator)).mean()
        descent.zero_grad()
        torch.autograd.backward(loss)
        descent.step()
    (row,) = probe(objective.encoder, SPEC, 3, adult.pool, adult.test, counts=(100,), draws=10).rows
    assert row.gain.mean > 3 * row.gain.sd / np.sqrt(10)
    assert row.supervised.mean > 0.7


def test_labels_that_are_the_input_are_found_by_every_arm(adult: Parts) -> None:
    generator = np.random.default_rng(0)
    inputs = generator.normal(size=(600, 103)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int64)
    made = Labelled(inputs, labels)
    (row,) = probe(build_encoder(SPEC, 3), SPEC, 3, made, made, counts=(500,), draws=2).rows
    assert row.raw.mean > 0.85
    assert row.supervised.mean > 0.6


def test_features_of_many_rows_are_each_row_s_own(adult: Parts) -> None:
    encoder = build_encoder(SPEC, 3)
    assert np.allclose(
        features(encoder, adult.pool.inputs[:2100])[2050:], features(encoder, adult.pool.inputs[2050:2100]), atol=1e-5
    )


def test_every_draw_of_the_random_arm_is_initialised_anew(adult: Parts) -> None:
    (row,) = probe(build_encoder(SPEC, 3), SPEC, 3, adult.pool, adult.test, counts=(60,), draws=3).rows
    (later,) = probe(build_encoder(SPEC, 4), SPEC, 3, adult.pool, adult.test, counts=(60,), draws=3).rows
    assert row.random == later.random
    assert later.gain.accuracies[1] == 0.0
    assert row.gain.accuracies[1] != 0.0


def test_a_score_has_the_mean_and_the_unbiased_spread_of_its_draws() -> None:
    score = Score((0.7, 0.8, 0.9))
    assert score.mean == pytest.approx(0.8)
    assert score.sd == pytest.approx(0.1)


def encode_site(parts: Parts) -> NDArray[np.float32]:
    from bract.tables import encode_rows, schema

    return encode_rows(schema("adult"), parts.sites[0].values)
