"""Connected components of a graph given as edges."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray


def connected_components(nodes: int, left: ArrayLike, right: ArrayLike) -> NDArray[np.int64]:
    """The component of each node, int64 (nodes,): the number of its smallest node.

    left, right: integers (edges,), the two ends of each edge, from 0 to nodes - 1; loops and repeated edges do no harm. The
    result does not depend on the order of the edges. Linear in nodes and edges.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components as label

    ends = np.asarray(left, np.int64), np.asarray(right, np.int64)
    if nodes == 0:
        return np.empty(0, np.int64)
    graph = coo_array((np.ones(len(ends[0]), np.bool_), ends), shape=(nodes, nodes)).tocsr()
    _, labels = label(graph, directed=False)
    smallest = np.full(nodes, nodes, np.int64)
    np.minimum.at(smallest, labels, np.arange(nodes))
    return smallest[labels]
