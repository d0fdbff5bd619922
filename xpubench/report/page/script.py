"""The page's script: its modules joined, because a page in one file has nothing to import from."""

import re
from importlib.resources import files

ENTRY = "page.js"
_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+\.js)";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?(?:function|const|class) )", re.MULTILINE)


def asset(name: str) -> str:
    """The text of a file of the templates."""
    return (files("xpubench.report.page") / "templates" / name).read_text(encoding="utf-8")


def joined_script() -> str:
    """One strict script of all modules that the page's entry imports, each behind those that it imports.

    All share one scope, so two modules that declare the same name make a script that no browser parses.
    """
    modules: dict[str, str] = {}
    _collect(ENTRY, modules)
    return f'"use strict";\n(() => {{\n{"".join(modules.values())}}})();\n'


def _collect(name: str, modules: dict[str, str]) -> None:
    source = asset(name)
    for imported in _IMPORT.findall(source):
        if imported not in modules:
            _collect(imported, modules)
    modules[name] = _EXPORT.sub("", _IMPORT.sub("", source))
