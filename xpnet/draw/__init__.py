"""A page to draw on: one HTML file with a trained model inside, which reads drawings in any browser, offline.

`page` assembles it from `page.html`, `page.css`, the scripts beside them, and the JSON of `content`. The scripts
are all texts (`words.js`), the network (`network.js`), the preparation of drawings (`prepare.js`), the pad (`pad.js`),
pictures (`view.js`), and the page as a whole (`main.js`).
"""

from .content import Examples, choose_examples
from .page import drawing_page

__all__ = ["Examples", "choose_examples", "drawing_page"]
