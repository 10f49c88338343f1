"""The demo: a page that counts people in photos, and endpoints for programs."""

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

# Gradio reads these on import. They stop it from sending analytics and from rebuilding a table of
# all past requests after each request.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "100")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000")

if not os.environ.get("GRADIO_SERVER_PORT", "7860").isdecimal():  # importing Gradio would fail
    sys.exit("app.py: GRADIO_SERVER_PORT is not a port number: use 1 to 65535, or unset it")

from demo import ZERO_GPU  # before Gradio: sets the folder for files

if ZERO_GPU:
    with contextlib.suppress(ImportError):
        import spaces  # noqa: F401  (before torch, which it prepares for a GPU that comes and goes)

try:
    import gradio as gr
except (ImportError, ValueError) as error:  # its client reads the proxy settings on import
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
        cards: the texts of the models' cards (README.md): "" for a model without one, None where
            the card is not known.
    """
    offered = models.Models([counter, *others], cards)
    app = Page(title="Crowd counter")
    with app:
        gr.Markdown(INTRO)
        for name, tab in TABS.items():
            with gr.Tab(name):
                tab.layout(offered)
        app.unload(app.forget)
    # Gradio's own /run would bypass the queue.
    app.queue(default_concurrency_limit=1, api_open=False)
    return app


def launch_options(mcp: bool = False) -> dict[str, Any]:
    """The arguments for `gr.Blocks.launch`: appearance and limits, with nothing recorded.

    Args:
        mcp: also offer the endpoints as Model Context Protocol tools; needs the extra "mcp".
    """
    return {
        "theme": THEME,
        "css": CSS,
        "head": HEAD,
        "footer_links": ["gradio"],  # Gradio's API page has examples that send a web address
        "run_history": False,
        "enable_monitoring": False,
        "max_file_size": MAX_FILE_SIZE,
        "app_kwargs": {
            "dependencies": [Depends(refuse)],
            "middleware": [Middleware(Bounded)],
        },
        "state_session_capacity": MAX_SESSIONS,
        "show_error": False,  # gr.Error is shown anyway; other errors might reveal paths
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
    # For a host that is not this machine's, Gradio would slowly try a hundred ports.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host.strip("[]"), port or 0), family=family).close()
    except (OSError, UnicodeError) as error:  # UnicodeError: not a possible host name
        where = f"{host}, port {port}" if port else host
        why = getattr(error, "strerror", None) or str(error)
        why = why.partition(" (while")[0]  # the message already names the address
        raise OSError(f"cannot serve at {where} ({why}): give another --host or --port") from error


def _around_proxies(host: str) -> None:
    """Make Gradio bypass any proxy when it requests its own page after starting to serve it."""
    for kind, address in urllib.request.getproxies().items():  # system settings; variables win
        os.environ.setdefault(f"{kind}_proxy", address)
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if known.strip() != "*":  # "*" already disables all proxies
        own = filter(None, [known, "localhost", "127.0.0.1", "::1", host.strip("[]")])
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(own)


def _counter(source: str) -> CrowdCounter:
    try:
        return CrowdCounter.from_pretrained(source)
    except ModelError:
        raise
    except RuntimeError as error:  # from torch or OpenVINO
        advice = ""
        if out_of_memory(error):  # such as a GPU that other processes have filled
            advice = ": free the device, or set CUDA_VISIBLE_DEVICES to nothing to count on the CPU"
        raise ModelError(f"{source} could not be loaded ({one_line(error)}){advice}.") from error


def _end_as_interrupted() -> None:
    """Make the signals of a service manager or a closed terminal end the page as Ctrl+C does, which
    also removes its visitors' files."""

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        sent = getattr(signal, name, None)  # Windows has no SIGHUP
        if sent is not None and signal.getsignal(sent) is not signal.SIG_IGN:  # ignored under nohup
            with contextlib.suppress(ValueError):  # only the main thread may set handlers
                signal.signal(sent, interrupt)


def main(argv: list[str] | None = None) -> None:
    """Load the models and serve the page until interrupted."""
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
    if ":" in args.host:  # IPv6: brackets, since it becomes part of URLs
        args.host = f"[{args.host.strip('[]')}]"
    if args.mcp and importlib.util.find_spec("mcp") is None:
        parser.exit(1, 'app.py: --mcp needs another package: pip install "gradio[mcp]"\n')
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(line_buffering=True)  # so a log file gets the address at once
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
    except KeyboardInterrupt:  # while a model is loaded
        parser.exit(130, "app.py: stopped\n")


if __name__ == "__main__":
    main()
