"""Environments that one virtual environment cannot hold: nox -l lists them, nox runs all."""

import re
from pathlib import Path

import nox

PYTEST = ["pytest>=8", "pytest-xdist>=3.6"]
HUB_CLIENTS = ["0.34.*", "1.*", "2.*"]
TESTED = ("app", "video", "heic", "train")  # the extras that are in `test`


@nox.session
@nox.parametrize("client", HUB_CLIENTS)
def hub(session: nox.Session, client: str) -> None:
    """Push and load with each line of huggingface_hub that is supported."""
    session.install("-e", ".", *PYTEST, f"huggingface_hub=={client}")
    session.run("pytest", "tests/test_hub.py", "tests/test_push.py")


@nox.session
def export(session: nox.Session) -> None:
    """ONNX and OpenVINO, in int8 too, checked against torch."""
    session.install("-e", ".[onnx,openvino,int8]", *PYTEST, "h5py>=3.10")
    session.run("pytest", "tests/test_export.py", "tests/test_openvino.py")


@nox.session
def mcp(session: nox.Session) -> None:
    """The page's tools for programs that speak MCP, which wants an older pydantic."""
    session.install("-e", ".[app,mcp]", *PYTEST)
    session.run("pytest", "tests/test_mcp.py")


@nox.session
def notebook(session: nox.Session) -> None:
    """The quickstart in a kernel of Jupyter."""
    session.install("-e", ".", *PYTEST, "nbclient>=0.10", "ipykernel>=6.29")
    session.run("pytest", "tests/test_notebook.py")


@nox.session(python="3.10")
def lowest(session: nox.Session) -> None:
    """The lowest Python, and the lowest release of each package, that pyproject.toml admits."""
    project = nox.project.load_toml("pyproject.toml")["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for name in TESTED for line in extras[name])]
    # gradio wants a later client than csrnet_hub does, whose lowest is a session of its own
    floors = [line for line in wanted if not line.startswith("huggingface_hub")]
    file = session.create_tmp() + "/floors.txt"
    Path(file).write_text("\n".join(re.sub(r">=([\d.]+)[^;]*", r"==\1.*", line) for line in floors))
    session.install("-e", ".[test]", "-c", file)
    session.run("pytest")
