"""Extension of the reference: docstrings as the house writes them, as the site's tools expect them."""

import re
from typing import Any

from griffe import Extension, Object

DISPLAYED = re.compile(r"^( *)\.\. math::[ ]*(.*(?:\n(?:\1 +.*|[ ]*)(?=\n))*)", re.MULTILINE)
EXAMPLE = re.compile(r"^Example:", re.MULTILINE)
INLINE = re.compile(r":math:`([^`]+)`")


class HouseStyle(Extension):
    """`.. math::` and `:math:` as the dollars that Markdown knows; an example as the section that holds code."""

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is None:
            return
        text = DISPLAYED.sub(lambda found: f"\n$$ {' '.join(found[2].split())} $$\n", obj.docstring.value)
        obj.docstring.value = EXAMPLE.sub("Examples:", INLINE.sub(r"$\1$", text))
