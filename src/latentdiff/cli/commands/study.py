"""`latentdiff study`: ask people which of two images they prefer, and count what they say."""

from __future__ import annotations

import contextlib
import time
from importlib.util import find_spec
from typing import Annotated, Literal

from cyclopts import App, Group, Parameter

from latentdiff.cli import console
from latentdiff.cli.options import Count, Flag
from latentdiff.cli.values import number
from latentdiff.errors import InputError
from latentdiff.io.files import check_files, write_json, write_text

ASKED, SERVER = Group.create_ordered("Questions"), Group.create_ordered("Server")
DATABASE = "study.db"
PORT = 8200
HOST = "127.0.0.1"
LOOK_SECONDS = 3.0  # the paper's
LARGEST_PORT = 65_535

Task = Literal["general", "super-resolution", "inpainting"]
Folder = Annotated[str | None, Parameter(metavar="FOLDER")]
File = Annotated[str | None, Parameter(metavar="FILE")]
Number = Annotated[int, Parameter(validator=number(0), metavar="N")]

app = App(
    "study",
    help_flags=("--help", "-h"),
    group_parameters=Group.create_default_parameters("Options"),
    usage="Usage: latentdiff study A B [REFERENCE] [OPTIONS]",
)


@app.default
def study(
    a: Annotated[str, Parameter(name="A")],
    b: Annotated[str, Parameter(name="B")],
    reference: Annotated[str | None, Parameter(name="REFERENCE")] = None,
    /,
    *,
    inputs: Annotated[Folder, Parameter(group=ASKED)] = None,
    task: Annotated[Task, Parameter(group=ASKED)] = "general",
    pairs: Annotated[Count | None, Parameter(group=ASKED, show_default="50, or all if there are fewer")] = None,
    checks: Annotated[Number | None, Parameter(group=ASKED, show_default="one for ten pairs, at least two")] = None,
    look: Annotated[float, Parameter(validator=number(0, 3600), metavar="SECONDS", group=ASKED)] = LOOK_SECONDS,
    seed: Annotated[Number, Parameter(group=ASKED)] = 0,
    texts: Annotated[str | None, Parameter(metavar="FILE.json", group=ASKED)] = None,
    database: Annotated[str, Parameter(metavar="FILE", group=SERVER)] = DATABASE,
    invite: Annotated[Count | None, Parameter(group=SERVER)] = None,
    expire: Annotated[
        float | None, Parameter(validator=number(0, 36_500), metavar="DAYS", group=SERVER, show_default="never")
    ] = None,
    host: Annotated[str, Parameter(group=SERVER)] = HOST,
    port: Annotated[int, Parameter(validator=number(0, LARGEST_PORT), metavar="N", group=SERVER)] = PORT,
    url: Annotated[
        str | None, Parameter(metavar="URL", group=SERVER, show_default="http:// with the host and the port")
    ] = None,
    quiet: Annotated[Flag, Parameter(group=SERVER)] = False,
) -> None:
    """Ask people which of two images they prefer, on a page that is served from here.

    A and B are folders with the images of two methods, REFERENCE the ground truth, all with equal file names.
    Participants choose between A and B, and between each of them and the ground truth if it is given. Answers go into
    a database; the same command goes on with it. `latentdiff study report study.db` has the results.

    Args:
        inputs: Folder with what the images were made from, which is shown in the middle: low resolution or masked.
        task: What is asked.
        pairs: Pairs that a participant sees.
        checks: Attention checks besides: an image beside a strongly degraded copy.
        look: Seconds for which a pair is looked at before an answer is taken.
        seed: Seed of orders and sides.
        texts: Texts of the page in another language.
        database: Where answers are stored.
        invite: Have N invitations, whose addresses are printed. Without any, the study is open to all who reach it.
        expire: Days after which invitations that are made now expire.
        host: Address of this machine to listen on; 0.0.0.0 is all of them, for other machines.
        port: Port; 0 takes a free one.
        url: What participants' addresses begin with, where a proxy stands before the server.
        quiet: Print nothing but addresses and errors.
    """
    if find_spec("starlette") is None or find_spec("uvicorn") is None:
        raise InputError("latentdiff study needs Starlette and uvicorn; install latentdiff[study]")
    if expire is not None and invite is None:
        raise InputError("--expire is given without --invite N; give both or none")
    console.announce("reading the images", quiet)
    from tqdm import tqdm

    from latentdiff.study.serve import address, listen, serve
    from latentdiff.study.store import open_store
    from latentdiff.study.study import open_study
    from latentdiff.study.texts import ENGLISH, read_texts

    table = ENGLISH if texts is None else read_texts(texts)
    check_files([database])
    with contextlib.closing(listen(host, port)) as listening:

        def done(images: int) -> None:
            bar.update(images)

        with tqdm(desc="images", unit="images", disable=not console.progress_shown(quiet)) as bar:
            opened = open_study(
                a,
                b,
                reference,
                inputs=inputs,
                task=task,
                pairs=pairs,
                checks=checks,
                look=look,
                seed=seed,
                texts=table,
                done=done,
                found=bar.reset,
            )
        base = (url or address(host, listening)).rstrip("/")
        with open_store(database, opened) as store:
            invitations = store.invite(invite or 0, expire)
            if not quiet:
                console.say(f"{len(opened)} pairs for each participant, answers in {database}; end with Ctrl-C")
            if not invitations:
                console.say(f"{base}/\topen to everybody who reaches it")
            for invitation in invitations:
                state = "started" if invitation.started else "not started"
                if invitation.expires is not None:
                    state += time.strftime(", expires %Y-%m-%d %H:%M", time.localtime(invitation.expires))
                console.say(f"{base}/s/{invitation.token}\t{state}")
            serve(opened, store, table, listening)


@app.command
def report(
    database: Annotated[str, Parameter(name="DATABASE")] = DATABASE,
    /,
    *,
    json: File = None,
    markdown: File = None,
    csv: File = None,
    wrong_checks: Number = 0,
    everyone: Flag = False,
) -> None:
    """Show how often which images were preferred, also while the server is at work.

    Shares have 95 % Wilson intervals, which take answers as independent; alpha is Krippendorff's, 1 where participants
    agree and 0 where they agree as by chance.

    Args:
        json: Write the report as JSON.
        markdown: Write it as a table in Markdown.
        csv: Write the answers that count, one a row.
        wrong_checks: Attention checks that a participant may answer wrongly and still count.
        everyone: Count those who failed attention checks, too.
    """
    from latentdiff.study.report import as_csv, as_json, as_lines, as_markdown, report_study

    check_files([path for path in (json, markdown, csv) if path is not None])
    found = report_study(database, wrong_checks_allowed=wrong_checks, everyone=everyone)
    if json is not None:
        write_json(json, as_json(found))
    for path, render in ((markdown, as_markdown), (csv, as_csv)):
        if path is not None:
            write_text(path, render(found))
    for line in as_lines(found):
        console.say(line)
