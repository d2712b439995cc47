"""The nearest picture of another cluster against every distance written out, and never nearer by thumbnails."""

from collections.abc import Callable

import numpy as np
import pytest

from tasks.measures import density

Maker = Callable[..., np.ndarray]


def brute(pictures: np.ndarray, centre: np.ndarray) -> list[float]:
    flat = pictures.reshape(len(pictures), -1) / 255
    of_others = lambda i: [c for c in set(centre.tolist()) if c != centre[i]]
    return [min((float(np.sqrt(np.mean((flat[i] - flat[c]) ** 2))) for c in of_others(i)), default=np.nan) for i in range(len(flat))]


@pytest.fixture
def shown(picture: Maker) -> tuple[np.ndarray, np.ndarray]:
    """30 pictures in clusters of up to three."""
    return np.stack([picture(i // 3, 32) for i in range(30)]), np.arange(30) // 3 * 3


def test_the_nearest_other_is_that_of_all_distances(shown: tuple[np.ndarray, np.ndarray]) -> None:
    assert density.nearest_other(*shown) == pytest.approx(brute(*shown), abs=1e-5)


@pytest.mark.parametrize("indexed", [10_000, 5])
def test_by_thumbnails_the_nearest_other_is_found_or_one_that_is_farther(shown: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch,
                                                                         indexed: int) -> None:
    monkeypatch.setattr(density, "EXACT", 1)
    monkeypatch.setattr(density, "INDEXED", indexed)
    found, exact = density.nearest_other(*shown), np.array(brute(*shown))
    assert (found >= exact - 1e-5).all()
    assert found == pytest.approx(exact, abs=1e-5)  # ten centres are all proposed


def test_one_cluster_has_no_other(picture: Maker) -> None:
    assert np.isnan(density.nearest_other(np.stack([picture(0, 32)] * 2), np.zeros(2, int))).all()
    assert len(density.nearest_other(np.zeros((0, 32, 32, 3), np.uint8), np.zeros(0, int))) == 0
