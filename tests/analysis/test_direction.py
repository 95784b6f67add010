"""One direction of an update, against dense linear algebra and random vectors."""

import numpy as np
import pytest

from dgviz.analysis.direction import align, describe_direction, leading_count

RNG = np.random.default_rng(0)


def test_shares_of_energy_and_of_what_is_moved():
    u, s, vh = np.linalg.svd(RNG.normal(size=(30, 20)))
    found = describe_direction(s, 3, u[:, 2], vh[2])
    assert found.s == s[2] and found.energy == pytest.approx(s[2] ** 2 / np.sum(s**2))
    order = np.argsort(-(u[:, 2] ** 2))
    assert [row for row, _ in found.rows] == order[:10].tolist()
    assert [share for _, share in found.rows] == pytest.approx((u[order[:10], 2] ** 2).tolist())
    whole = describe_direction(s, 20, u[:, 19], vh[19] * np.eye(20)[4])
    assert whole.columns[0] == (4, pytest.approx(vh[19, 4] ** 2))


def test_alignment_with_the_very_same_and_with_orthogonal_directions():
    u, _, vh = np.linalg.svd(RNG.normal(size=(40, 25)))
    same = align(-u[:, 1], vh[1], u[:, :4], vh[:4])
    for side in (same.left, same.right):
        assert (side.cosine, side.nearest, side.share) == (pytest.approx(1), 2, pytest.approx(1))
    apart = align(u[:, 9], vh[9], u[:, :4], vh[:4])
    assert max(apart.left.cosine, apart.right.share) < 1e-12 and apart.leading == 4
    mixed = align((u[:, 0] + u[:, 20]) / np.sqrt(2), vh[0], u[:, :4], vh[:4])
    assert mixed.left.share == pytest.approx(0.5) and mixed.left.cosine == pytest.approx(np.sqrt(0.5))


def test_random_vectors_have_what_is_said_to_be_usual():
    basis, _ = np.linalg.qr(RNG.normal(size=(300, 30)))
    vectors = RNG.normal(size=(300, 400))
    vectors /= np.linalg.norm(vectors, axis=0)
    sides = [align(vector, vector, basis, basis.T).left for vector in vectors.T]
    assert np.median([side.cosine for side in sides]) == pytest.approx(sides[0].chance_cosine, rel=0.04)
    assert np.mean([side.share for side in sides]) == pytest.approx(sides[0].chance_share, rel=0.04)


def test_a_tenth_of_the_directions_leads():
    assert [leading_count(shape) for shape in ((4, 9), (512, 128), (8192, 8192))] == [1, 12, 64]
