"""Ten digits as strokes, points [x, y] from 0 to 1, drawn on a page by the mouse."""

from __future__ import annotations

import numpy as np

DIGITS = {
    "0": [
        [
            (0.52, 0.18),
            (0.36, 0.26),
            (0.3, 0.5),
            (0.36, 0.74),
            (0.52, 0.82),
            (0.66, 0.72),
            (0.7, 0.5),
            (0.64, 0.26),
            (0.52, 0.18),
        ]
    ],
    "1": [[(0.53, 0.15), (0.5, 0.5), (0.47, 0.85)]],
    "2": [
        [
            (0.32, 0.32),
            (0.4, 0.2),
            (0.55, 0.17),
            (0.66, 0.27),
            (0.62, 0.45),
            (0.45, 0.65),
            (0.3, 0.8),
            (0.5, 0.8),
            (0.72, 0.79),
        ]
    ],
    "3": [
        [
            (0.32, 0.22),
            (0.5, 0.16),
            (0.65, 0.26),
            (0.6, 0.4),
            (0.45, 0.47),
            (0.62, 0.54),
            (0.68, 0.68),
            (0.56, 0.82),
            (0.32, 0.8),
        ]
    ],
    "4": [[(0.38, 0.18), (0.32, 0.48), (0.5, 0.53), (0.72, 0.5)], [(0.66, 0.16), (0.62, 0.5), (0.58, 0.86)]],
    "5": [
        [(0.66, 0.18), (0.4, 0.2), (0.37, 0.45), (0.52, 0.42), (0.66, 0.52), (0.66, 0.7), (0.52, 0.82), (0.32, 0.78)]
    ],
    "6": [[(0.6, 0.14), (0.42, 0.35), (0.34, 0.62), (0.42, 0.8), (0.58, 0.8), (0.66, 0.66), (0.56, 0.54), (0.4, 0.6)]],
    "7": [[(0.3, 0.22), (0.5, 0.21), (0.7, 0.2), (0.6, 0.45), (0.5, 0.66), (0.44, 0.86)]],
    "8": [
        [
            (0.64, 0.26),
            (0.5, 0.16),
            (0.38, 0.26),
            (0.44, 0.4),
            (0.6, 0.56),
            (0.64, 0.72),
            (0.5, 0.83),
            (0.38, 0.72),
            (0.46, 0.54),
            (0.62, 0.38),
            (0.64, 0.26),
        ]
    ],
    "9": [
        [
            (0.66, 0.3),
            (0.54, 0.17),
            (0.38, 0.26),
            (0.38, 0.44),
            (0.52, 0.5),
            (0.65, 0.4),
            (0.66, 0.3),
            (0.64, 0.6),
            (0.6, 0.85),
        ]
    ],
}


def draw(page, strokes):
    """Draw strokes on the page's pad, by the mouse."""
    pad = page.locator("#pad")
    pad.scroll_into_view_if_needed()
    area = pad.bounding_box()
    for stroke in strokes:
        curve = smooth(np.array(stroke)) * [area["width"], area["height"]] + [area["x"], area["y"]]
        page.mouse.move(*curve[0])
        page.mouse.down()
        for point in curve[1:]:
            page.mouse.move(*point)
        page.mouse.up()


def smooth(points):
    """Points of the Catmull-Rom curve through `points`, (N, 2), two for each part."""
    ends = np.concatenate([points[:1], points, points[-1:]])
    a, b, c, d = (ends[k : len(ends) - 3 + k] for k in range(4))
    t = np.arange(1, 3)[:, None, None] / 2
    parts = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    return np.concatenate([points[:1], parts.swapaxes(0, 1).reshape(-1, 2)])
