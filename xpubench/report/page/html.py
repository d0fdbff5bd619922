"""Self-contained pages: templates that escape, and data that no browser can take for code."""

import base64
import gzip
import hashlib
from importlib.resources import files
from typing import Any

import msgspec
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from xpubench.report import text

# In the order in which each uses the ones before it.
SCRIPTS = ("base.js", "table.js", "plot.js", "run_figures.js", "panel.js", "page_figures.js", "page.js")


def page(template: str, data: dict[str, str], **context: Any) -> bytes:
    """The page of a template with its style, script and Plotly; `data` are packed values by name.

    The content security policy lets run the page's own two scripts, known by their hashes, and nothing be
    loaded: a hostile text that got past the escaping would still neither run nor call home.
    """
    environment = Environment(
        loader=PackageLoader("xpubench.report.page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "ms": text.ms,
        "percent": text.percent,
        "interval": text.interval,
        "date": text.date,
        "gb": text.gb,
    }
    plotly = get_plotlyjs()
    # One scope of its own.
    script = f'"use strict";\n(() => {{\n{"".join(map(_asset, SCRIPTS))}}})();\n'
    whole = environment.get_template(template).render(
        style=Markup(_asset("report.css")),
        script=Markup(script),
        script_sources=f"{_csp_hash(script)} {_csp_hash(plotly)}",
        data=data | {"plotly": _packed(plotly.encode())},
        **context,
    )
    return whole.encode("utf-8", "replace")


def packed(value: Any) -> str:
    """A value as base64 of compressed JSON, which holds no `<`; what is not finite becomes null."""
    return _packed(msgspec.json.encode(value))


def _packed(data: bytes) -> str:
    return base64.b64encode(gzip.compress(data, compresslevel=6, mtime=0)).decode()


def _asset(name: str) -> str:
    return (files("xpubench.report.page") / "templates" / name).read_text(encoding="utf-8")


def _csp_hash(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"
