"""Executed cells as one HTML page: prose by markdown-it, code coloured by Pygments, pictures inline."""

import hashlib
from collections.abc import Sequence
from html import escape

from jinja2 import Environment
from markdown_it import MarkdownIt
from markupsafe import Markup
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers.python import PythonLexer

from fewbits.notebook.run import Ran

_COLOURS = HtmlFormatter(style="friendly", nowrap=False)
_PROSE = MarkdownIt("commonmark", {"html": False}).enable("table")
_PAGE = Environment(autoescape=True, trim_blocks=True).from_string("""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>{{ title }}</title>
<meta name="viewport" content="width=device-width"><meta name="source-sha256" content="{{ digest }}">
<style>
body { font: 16px/1.5 sans-serif; color: #1a1a1a; max-width: 58rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.7rem } h2 { font-size: 1.3rem; margin-top: 2.2em } h3 { font-size: 1.1rem }
pre { font: 12.5px/1.4 monospace; overflow-x: auto; margin: 0 }
.highlight { background: #f6f6f4; padding: .6em .8em; border-left: 3px solid #1f5fa8; margin: 1em 0 0 }
.printed { padding: .6em .8em; border-left: 3px solid #c4571a; margin: 0 0 1em }
.picture { margin: 1em 0 } .picture svg { max-width: 100%; height: auto }
code { background: #f0f0ee; padding: 0 .2em } a { color: #1f5fa8 }
table { border-collapse: collapse }
td, th { border-bottom: 1px solid #ccc; padding: .2em .8em .2em 0; text-align: left }
footer { color: #666; font-size: .85rem; margin-top: 3em }
{{ colours }}
</style></head><body>
{% for part in parts %}
{{ part }}
{% endfor %}
<footer>Made by <code>fewbits lab {{ name }} --out {{ name }}.html{{ settings }}</code>.</footer>
</body></html>
""")


def page(name: str, title: str, source: str, ran: Sequence[Ran], settings: Sequence[str] = ()) -> str:
    """The page of a lab. name: as `fewbits lab` takes it; source: its file's text, whose digest the page holds."""
    parts = [Markup(_part(each)) for each in ran]  # escaped by what makes each of them
    return _PAGE.render(title=title, parts=parts, name=name, digest=digest(source),
                        settings="".join(f" --set {one}" for one in settings),
                        colours=Markup(_COLOURS.get_style_defs(".highlight")))


def digest(source: str) -> str:
    """SHA-256 of a lab's text."""
    return hashlib.sha256(source.encode()).hexdigest()


def _part(ran: Ran) -> str:
    if ran.cell.kind == "markdown":
        return _PROSE.render(ran.cell.text)
    parts = [highlight(ran.cell.text, PythonLexer(), _COLOURS)]
    text = "\n".join(part for part in (ran.printed.rstrip("\n"), ran.value) if part)
    if text:
        parts.append(f'<pre class="printed">{escape(text)}</pre>')
    if ran.svg is not None:
        parts.append(f'<div class="picture">{ran.svg}</div>')
    return "\n".join(parts)
