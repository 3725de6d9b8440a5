"""Jinja in the shard: Synapse's own templates work, and a tenant's can neither reach out of itself nor keep the process busy."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import jinja2
import pytest
import synapse

from multi_synapse.patches.templates import Sandbox, TemplateRefused

TEMPLATES = Path(synapse.__file__).parent / "res" / "templates"


def sandbox(**templates: str) -> Sandbox:
    made = Sandbox(loader=jinja2.DictLoader(templates), autoescape=True)
    made.filters.update({"format_ts": lambda value, _format: str(value), "mxc_to_http": lambda value, *_rest: str(value)})
    return made


def render(text: str, **values: Any) -> str:
    return sandbox(page=text).get_template("page").render(**values)


@pytest.mark.parametrize("name", sorted(path.name for path in TEMPLATES.glob("*.*") if path.suffix in (".html", ".txt")))
def test_synapses_own_templates_compile(name: str) -> None:
    environment = Sandbox(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
    environment.filters.update({"format_ts": str, "mxc_to_http": str})
    assert environment.get_template(name) is not None


def test_a_mail_of_many_messages_is_rendered() -> None:
    environment = Sandbox(loader=jinja2.FileSystemLoader(TEMPLATES), autoescape=True)
    environment.filters.update({"format_ts": lambda value, _format: str(value), "mxc_to_http": lambda value, *_rest: str(value)})
    message = {
        "ts": 1,
        "sender_name": "Alice",
        "body_text_plain": "hello",
        "msgtype": "m.text",
        "event_type": "m.room.message",
        "body_text_html": "hello",
        "is_historical": False,
        "sender_hash": 5,
    }
    rooms = [{"title": f"room {i}", "notifs": [{"link": "x", "ts": 1, "messages": [message] * 3}] * 5, "hash": 1} for i in range(30)]
    page = environment.get_template("notif_mail.html").render(
        rooms=rooms,
        user_display_name="Bob",
        app_name="Matrix",
        summary_text="…",
        reason={"delay_before_mail_ms": 600000, "throttle_ms": 60000},
    )
    assert page.count("hello") == 450 and "10.0" in page


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ name | upper }} {{ name.split('@')[0] }} {{ name.replace('b', 'x') }}", "A@B.C a a@x.c"),
        ("{% for i in range(3) %}{{ i }}{{ ',' if not loop.last }}{% endfor %}", "0,1,2"),
        ("{{ 'a' ~ 1 ~ name }}", "a1a@b.c"),
        ("{{ '%.1f'|format(2.25) }} {{ 'x%s' % name }}", "2.2 xa@b.c"),
        ("{{ {'a': 1}.items() | length }} {{ [1, 2] | join('-') }}", "1 1-2"),
        ("{{ missing | default('d') }}{{ '<' }}{{ '<' | safe }}", "d&lt;<"),
        ("{% set x = name %}{% if x is string %}{{ x }}{% endif %}", "a@b.c"),
    ],
)
def test_ordinary_templates_work(text: str, expected: str) -> None:
    assert render(text, name="a@b.c") == expected


NESTED = "".join(f"{{% for v{i} in range(900) %}}" for i in range(4)) + "x" + "{% endfor %}" * 4
DOUBLED = "{% set x = 'xxxxxxxxxxxxxxxx' %}" + "{% set x = x ~ x %}" * 60 + "{{ x | length }}"
LISTS = "{% set x = [1] %}" + "{% set x = [x, x] %}" * 60 + "{{ x }}"
SQUARED = "{% set x = 9 %}" + "{% set x = x * x %}" * 60 + "{{ x }}"


@pytest.mark.parametrize(
    "text",
    [
        NESTED,
        DOUBLED,
        LISTS,
        SQUARED,
        "{% set x = 'x' %}" + "{% set x = x + x %}" * 60,
        "{% set x = '%' %}" + "{% set x = x | urlencode %}" * 200 + "{{ x }}",
        "{% set x = '&' %}" + "{% set x = x | forceescape %}" * 100,
        "{% set x = 'xx' %}" + "{% set x = x.replace('x', 'xxxxxxxxxxxxxxxxx') %}" * 20,
        "{% set x = 'xx' %}" + "{% set x = x | replace('x', 'xxxxxxxxxxxxxxxxx') %}" * 20,
        "{{ 'x' * 1000000000 }}",
        "{{ [0] * 1000000000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ '%*d' | format(1000000000, 1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ 'x'.ljust(1000000000) }}",
        "{{ 'x' | center(1000000000) }}",
        "{{ range(1000000000) | list }}",
        "{{ range(100000) | join }}",
        "{{ lipsum(n=100000) }}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% for x in [1, [1]] recursive %}{{ loop(x) }}{% endfor %}",
        "{% include 'page' %}{% include 'page' %}",
        "{% import 'page' as p %}",
        "{{ namespace(x=1) }}",
        "{{ ''.__class__ }}{{ ''.__class__.__mro__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ handler.secret() }}",
        "{{ handler.__dict__ }}",
        "{{ items.append(1) }}",
    ],
)
def test_a_template_that_goes_too_far_is_ended_at_once(text: str) -> None:
    class Handler:
        def secret(self) -> str:
            return "secret"

    begun = time.process_time()
    try:
        page = render(text, handler=Handler(), items=[])
    except (jinja2.TemplateError, TypeError, ValueError, RecursionError):
        page = ""
    assert time.process_time() - begun < 2
    assert "secret" not in page and "uid=" not in page and "class" not in page
    assert len(page) < 1000


def test_a_budget_ends_with_its_rendering() -> None:
    with pytest.raises(TemplateRefused):
        render(NESTED)
    assert render("{% for i in range(900) %}{% for j in range(20) %}{% endfor %}{% endfor %}ok") == "ok"


def test_a_template_outside_of_its_directory_is_not_found(folder: Path) -> None:
    (folder / "secret").write_text("secret")
    (folder / "own").mkdir()
    (folder / "own" / "page.html").write_text("{% include '../secret' %}")
    environment = Sandbox(loader=jinja2.FileSystemLoader(folder / "own"))
    with pytest.raises(jinja2.TemplateNotFound):
        environment.get_template("page.html").render()
