"""Self-contained pages: templates that escape, and data that no browser can take for code."""

import base64
import gzip
import hashlib
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from xpubench.report import text
from xpubench.report.page.script import asset, joined_script


def page(template: str, data: dict[str, str], constants: dict[str, Any], **context: Any) -> bytes:
    """The page of a template with its style, script and Plotly; `data` are packed values by name, and
    `constants` the values that the script and Python share.

    The content security policy allows only the page's own two scripts, by their hashes, and loads nothing: a
    hostile text that got past the escaping could neither run nor send anything.
    """
    loader = PackageLoader("xpubench.report.page")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"ms": text.number, "percent": text.percent, "date": text.date}
    plotly = get_plotlyjs()
    script = joined_script()
    whole = environment.get_template(template).render(
        style=Markup(asset("report.css")),
        script=Markup(script),
        script_sources=f"{_csp_hash(script)} {_csp_hash(plotly)}",
        constants=constants | {"none": text.NONE},
        data=data | {"plotly": _packed(plotly.encode())},
        **context,
    )
    return whole.encode("utf-8", "replace")


def packed(value: Any) -> str:
    """A value as base64 of compressed JSON, which holds no `<`; what is not finite becomes null."""
    return _packed(msgspec.json.encode(value))


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, compresslevel=6, mtime=0)).decode()


def _csp_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
