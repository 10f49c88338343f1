"""The demo: a page that counts the people in photos, and endpoints for programs."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import os
import signal
import socket
import sys
import urllib.request
from collections.abc import Sequence
from typing import Any

# Gradio reads these while it is imported: nothing is sent, and no table of all that was ever asked
# is made anew after each request.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000")

if not os.environ.get("GRADIO_SERVER_PORT", "7860").isdecimal():  # Gradio's import would fail on it
    sys.exit("app.py: GRADIO_SERVER_PORT is not a port number: use 1 to 65535, or unset it")

from demo import ZERO_GPU  # before Gradio: where files are kept

if ZERO_GPU:
    with contextlib.suppress(ImportError):
        import spaces  # noqa: F401  (before torch, which it prepares for a GPU that comes and goes)

try:
    import gradio as gr
except (ImportError, ValueError) as error:  # its client looks at the proxies as it is imported
    if "proxy" not in str(error):
        raise
    sys.exit(f"app.py: {error} Unset ALL_PROXY, or: pip install 'httpx[socks]'")
from fastapi import Depends
from starlette.middleware import Middleware

from csrnet_hub import CrowdCounter, ModelError
from csrnet_hub.cli import open_streams
from csrnet_hub.devices import out_of_memory
from csrnet_hub.extras import ExtraError
from csrnet_hub.hub import one_line
from csrnet_hub.images import hide_library_warnings
from csrnet_hub.resources import DEFAULT_MODEL, resource
from demo import about, annotate, batch, compare, models, photo, programs, video
from demo.cards import read_card
from demo.files import MAX_SESSIONS
from demo.received import Bounded
from demo.sent import refuse
from demo.shared import MAX_FILE_SIZE
from demo.style import CSS, HEAD, THEME
from demo.visitors import Page

TABS = {
    "One photo": photo,
    "Many photos": batch,
    "Compare": compare,
    "Annotate": annotate,
    "Video": video,
    "Models": about,
    "For programs": programs,
}
INTRO = "# Crowd counter\nHow many people are in a photo, and where they stand."


def build_app(
    counter: CrowdCounter, *others: CrowdCounter, cards: Sequence[str | None] = ()
) -> gr.Blocks:
    """Lay out the page around one or more counters; `launch(**launch_options())` serves it.

    Args:
        cards: the texts of the cards (README.md) that came with the models, "" for none, None for
            one that is not known.
    """
    offered = models.Models([counter, *others], cards)
    app = Page(title="Crowd counter")
    with app:
        gr.Markdown(INTRO)
        for name, tab in TABS.items():
            with gr.Tab(name):
                tab.layout(offered)
        app.unload(app.forget)
    # Gradio's own /run would go past the queue.
    app.queue(default_concurrency_limit=1, api_open=False)
    return app


def launch_options(mcp: bool = False) -> dict[str, Any]:
    """What the page asks of `gr.Blocks.launch`: its looks, its limits, nothing recorded.

    Args:
        mcp: offer the endpoints as tools of the Model Context Protocol too; needs the extra "mcp".
    """
    return {
        "theme": THEME,
        "css": CSS,
        "head": HEAD,
        "footer_links": ["gradio"],  # its own page on the API sends a web address
        "run_history": False,
        "enable_monitoring": False,
        "max_file_size": MAX_FILE_SIZE,
        "app_kwargs": {
            "dependencies": [Depends(refuse)],
            "middleware": [Middleware(Bounded)],
        },
        "state_session_capacity": MAX_SESSIONS,
        "show_error": False,  # gr.Error is shown all the same; others might name paths
        "ssr_mode": False,
        "mcp_server": mcp,
    }


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a port number: use 1 to 65535 (--port or GRADIO_SERVER_PORT)"
        )
    return int(text)


def _check_address(host: str, port: int | None) -> None:
    # Gradio would try a hundred ports at a host that is not this machine's, each for a while.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host.strip("[]"), port or 0), family=family).close()
    except (OSError, UnicodeError) as error:  # the latter for what can be no host's name
        where = f"{host}, port {port}" if port else host
        why = getattr(error, "strerror", None) or str(error)
        why = why.partition(" (while")[0]  # the address is named already
        raise OSError(f"cannot serve at {where} ({why}): give another --host or --port") from error


def _around_proxies(host: str) -> None:
    """Have Gradio, which asks for its own page once it serves it, do so without a proxy."""
    for kind, address in urllib.request.getproxies().items():  # of the system, unless it is named
        os.environ.setdefault(f"{kind}_proxy", address)
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if known.strip() != "*":  # no proxy at all
        own = filter(None, [known, "localhost", "127.0.0.1", "::1", host.strip("[]")])
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(own)


def _counter(source: str) -> CrowdCounter:
    try:
        return CrowdCounter.from_pretrained(source)
    except ModelError:
        raise
    except RuntimeError as error:  # of torch or OpenVINO
        advice = ""
        if out_of_memory(error):  # as of a GPU that others have filled
            advice = ": free the device, or set CUDA_VISIBLE_DEVICES to nothing to count on the CPU"
        raise ModelError(f"{source} could not be loaded ({one_line(error)}){advice}.") from error


def _end_as_interrupted() -> None:
    """Have what a service manager or a closed terminal sends end the page as Ctrl+C does, with the
    files of its visitors."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        sent = getattr(signal, name, None)  # Windows has no SIGHUP
        if sent is not None and signal.getsignal(sent) is not signal.SIG_IGN:  # as under nohup
            with contextlib.suppress(ValueError):  # not in the main thread, which alone may
                signal.signal(sent, interrupt)


def main(argv: list[str] | None = None) -> None:
    """Load the models, serve the page until interrupted."""
    env = os.environ.get
    parser = argparse.ArgumentParser(prog="app.py", description="Serve the crowd-counting page.")
    parser.add_argument(
        "--model",
        action="append",
        metavar="MODEL",
        help="folder, Hub id or FILE.xml of csrnet export; give it again for a choice of models "
        "(default: CSRNET_MODEL, with commas between several, else csrnet-joint)",
    )
    parser.add_argument(
        "--host",
        default=env("GRADIO_SERVER_NAME") or "127.0.0.1",
        help="default: GRADIO_SERVER_NAME, else 127.0.0.1, this machine alone; 0.0.0.0 is for "
        "others on its network too",
    )
    parser.add_argument(
        "--port",
        type=_port,
        default=env("GRADIO_SERVER_PORT") or None,
        help="default: GRADIO_SERVER_PORT, else the first free one from 7860 on",
    )
    parser.add_argument("--share", action="store_true", help="also open a public address at Gradio")
    parser.add_argument(
        "--mcp",
        action="store_true",
        default=env("CSRNET_MCP", "").lower() in ("1", "true", "yes"),
        help="offer the endpoints as MCP tools too; so does CSRNET_MCP=1",
    )
    args = parser.parse_args(argv)
    open_streams()
    if ":" in args.host:  # an IPv6 address, which is made part of others
        args.host = f"[{args.host.strip('[]')}]"
    if args.mcp and importlib.util.find_spec("mcp") is None:
        parser.exit(1, 'app.py: --mcp needs another package: pip install "gradio[mcp]"\n')
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # a log file is told the address at once
    hide_library_warnings()
    named = [name.strip() for name in env("CSRNET_MODEL", "").split(",") if name.strip()]
    try:
        sources = args.model or named or [str(resource(DEFAULT_MODEL) or DEFAULT_MODEL)]
        _check_address(args.host, args.port)
        app = build_app(*map(_counter, sources), cards=[read_card(source) for source in sources])
        _end_as_interrupted()
        _around_proxies(args.host)
        app.launch(
            server_name=args.host,
            server_port=args.port,
            share=args.share,
            **launch_options(args.mcp),
        )
    except (ModelError, ExtraError, OSError) as error:  # no such model, extra or address
        parser.exit(1, f"app.py: {error}\n")


if __name__ == "__main__":
    main()
