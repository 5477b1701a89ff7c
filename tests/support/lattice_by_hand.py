"""The permutohedral lattice once more, point by point in plain Python, after the text of the paper.

Independent of the package's: vertices are tuples in a dictionary, every one of a simplex's corners is found by
comparing differences, and barycentric weights come from solving for them.
"""

from __future__ import annotations

import numpy as np

Vertex = tuple[int, ...]


def lattice_matrix(features: np.ndarray) -> np.ndarray:
    """(N, N) float64: what each point gathers from each, for (N, D) features."""
    dimensions = features.shape[1]
    size = dimensions + 1
    points = [_simplex(point) for point in _elevate(features.astype(np.float64))]
    vertices = sorted({vertex for point in points for vertex in point})
    place = {vertex: index for index, vertex in enumerate(vertices)}
    spread = np.zeros((len(points), len(vertices)))
    for index, point in enumerate(points):
        for vertex, weight in point.items():
            spread[index, place[vertex]] = weight
    grid = spread.T
    for direction in range(size):
        step = np.ones(size, int)
        step[direction] -= size
        blurred = grid.copy()
        for index, vertex in enumerate(vertices):
            for sign in (-1, 1):
                other = place.get(tuple((np.array(vertex) + sign * step).tolist()))
                if other is not None:
                    blurred[index] += grid[other] / 2
        grid = blurred
    return spread @ grid / (1 + 2.0**-dimensions)


def _elevate(features: np.ndarray) -> np.ndarray:
    """By the matrix of the paper's basis of the plane, scaled to the blur's variance."""
    dimensions = features.shape[1]
    basis = np.zeros((dimensions + 1, dimensions))
    for column in range(dimensions):
        basis[: column + 1, column] = 1
        basis[column + 1, column] = -(column + 1)
        basis[:, column] /= np.sqrt((column + 1) * (column + 2))
    return features @ basis.T * np.sqrt(2 / 3) * (dimensions + 1)


def _simplex(point: np.ndarray) -> dict[Vertex, float]:
    """Vertices around a point of the plane, with barycentric weights."""
    size = len(point)
    nearest = size * np.round(point / size).astype(int)
    while (excess := nearest.sum() // size) != 0:  # correct, one by one, the coordinates that were rounded the farthest
        difference = point - nearest
        last_of_lowest = len(point) - 1 - np.argmin(difference[::-1])
        index = last_of_lowest if excess > 0 else np.argmax(difference)
        nearest[index] -= size * np.sign(excess)
    descending = np.argsort(-(point - nearest), kind="stable")
    corners = []
    for remainder in range(size):
        corner = nearest + remainder
        corner[descending[size - remainder :]] -= size
        corners.append(corner)
    equations = np.vstack([np.array(corners, float).T, np.ones(size)])
    weights = np.linalg.lstsq(equations, np.append(point, 1.0), rcond=None)[0]
    assert weights.min() > -1e-9, "the point lies in the simplex"
    return {tuple(corner.tolist()): float(weight) for corner, weight in zip(corners, weights, strict=True)}
