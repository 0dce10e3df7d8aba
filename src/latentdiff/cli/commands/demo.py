"""`latentdiff demo`: a page with every task's natural controls."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Annotated

from cyclopts import Group, Parameter

from latentdiff.cli import console
from latentdiff.cli.options import MODEL, ComputeDType, Flag
from latentdiff.cli.values import number
from latentdiff.errors import InputError

SERVER = Group.create_ordered("Server")
HOST, PORT, LARGEST_PORT = "127.0.0.1", 7860, 65_535


def demo(
    model: Annotated[tuple[str, ...], Parameter(name="MODEL", show_default=False)] = (),
    /,
    *,
    dtype: Annotated[ComputeDType, Parameter(group=MODEL)] = "float32",
    device: Annotated[str | None, Parameter(group=MODEL)] = None,
    host: Annotated[str, Parameter(group=SERVER)] = HOST,
    port: Annotated[int, Parameter(validator=number(0, LARGEST_PORT), metavar="N", group=SERVER)] = PORT,
    share: Annotated[Flag, Parameter(group=SERVER)] = False,
    export_space: Annotated[str | None, Parameter(metavar="FOLDER", group=SERVER)] = None,
    quiet: Annotated[Flag, Parameter(group=SERVER)] = False,
) -> None:
    """Open a page on which images are made of prompts, classes, boxes, label maps, masks and pictures.

    Images carry the parameters of their generation, and the commands make the same files of them. The page can be
    reached from this machine alone unless --host or --share is given, and asks nothing of others.

    Args:
        model: Models to choose from: "builtin:NAME", a folder, or a hub id (default: all built-in models).
        dtype: Precision of the networks; "auto" is bfloat16 where the device multiplies in it, else float32.
        device: Device, such as cuda, cuda:1, mps or cpu (default: an accelerator if there is one).
        host: Address of this machine to listen on; 0.0.0.0 is all of them, for other machines.
        port: Port; 0 takes a free one.
        share: Let everybody who knows its address reach the page over the internet, by a tunnel of gradio's.
        export_space: Serve nothing, but write the files of a Space of Hugging Face with these models and options.
        quiet: Print nothing but the address and errors.
    """
    if find_spec("gradio") is None:
        raise InputError("latentdiff demo needs gradio; install latentdiff[demo]")
    if export_space is not None:
        if (host, port, share) != (HOST, PORT, False):
            raise InputError("--export-space serves nothing; leave --host, --port and --share out")
        from latentdiff.demo.space import export_space as export

        options = [*(() if device is None else ("--device", device)), "--dtype", dtype]
        for path in export(export_space, model, options):
            if not quiet:
                console.say(str(path))
        return
    console.announce("loading the models", quiet)
    with console.quiet_libraries(quiet):
        from latentdiff.cli.options import ModelOptions
        from latentdiff.demo.models import load_model, names_of_models

        names = names_of_models(model)
        loaded = [load_model(ModelOptions(model=name, dtype=dtype, device=device)) for name in names]
        from latentdiff.demo.serve import serve  # gradio takes seconds to import

    if not quiet:
        console.say(f"{', '.join(names)}; end with Ctrl-C")
    serve(loaded, host, port, share, console.say)  # what goes wrong from here on is for whoever runs the server
