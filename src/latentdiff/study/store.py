"""What participants answer, in a SQLite file: an answer is on the disk before anybody is told that it is stored."""

from __future__ import annotations

import json
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from latentdiff.errors import InputError
from latentdiff.io.files import check_files
from latentdiff.io.lock import BusyError, locked
from latentdiff.study.plan import Pair
from latentdiff.study.study import Facts, Study

APPLICATION = 0x4C444653  # "LDFS", by which SQLite files tell whose they are
FORMAT = 1  # of the tables
IDENTITY = ("application_id", "user_version")  # the places in the file that have these two
TOKEN_BYTES = 12
SECONDS_A_DAY = 86_400
BUSY_SECONDS = 2.0  # for which another process, such as a backup, may hold the file

TABLES = """
CREATE TABLE study (fingerprint TEXT NOT NULL, facts TEXT NOT NULL, made REAL NOT NULL);
CREATE TABLE participants (
    token TEXT PRIMARY KEY,
    number INTEGER UNIQUE,
    invited INTEGER NOT NULL,
    made REAL NOT NULL,
    expires REAL
);
CREATE TABLE answers (
    number INTEGER NOT NULL REFERENCES participants (number),
    position INTEGER NOT NULL,
    image TEXT NOT NULL,
    left_role TEXT NOT NULL,
    right_role TEXT NOT NULL,
    shown REAL NOT NULL,
    chosen TEXT,
    answered REAL,
    PRIMARY KEY (number, position)
);
"""


class RefusedError(InputError):
    """A request of a page can't be fulfilled.

    Args:
        message: The message.
        reason: "unknown", "expired", "closed", "early" or "order".
        wait: After how many seconds it could be, if it is too early.
    """

    def __init__(self, message: str, reason: str, wait: float = 0.0) -> None:
        super().__init__(message)
        self.reason = reason
        self.wait = wait


@dataclass(frozen=True)
class Invitation:
    """An invitation.

    Attributes:
        token: The secret part of its address.
        started: Whether somebody has opened it.
        expires: When it expires, in seconds since 1970; None for never.
    """

    token: str
    started: bool
    expires: float | None


class Store:
    """The answers of a study, for any number of threads.

    Args:
        connection: The database.
        study: The study.
        clock: Seconds since 1970.
    """

    def __init__(self, connection: sqlite3.Connection, study: Study, clock: Callable[[], float]) -> None:
        self._connection = connection
        self._study = study
        self._clock = clock
        self._mutex = threading.Lock()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """One transaction of one thread, which is on the disk when the block has ended."""
        with self._mutex:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def is_open(self) -> bool:
        """Whether anybody may take part: as long as there are no invitations."""
        with self._mutex:
            return not self._connection.execute("SELECT 1 FROM participants WHERE invited LIMIT 1").fetchall()

    def invite(self, count: int, days: float | None = None) -> list[Invitation]:
        """Have at least so many invitations in all, and list them.

        Args:
            count: How many there are to be; those that are missing are made.
            days: After how many days new ones expire; None for never.
        """
        now = self._clock()
        expires = None if days is None else now + days * SECONDS_A_DAY
        with self._transaction() as connection:
            there = connection.execute("SELECT count(*) FROM participants WHERE invited").fetchone()[0]
            new = [(secrets.token_urlsafe(TOKEN_BYTES), now, expires) for _ in range(count - there)]
            connection.executemany("INSERT INTO participants VALUES (?, NULL, 1, ?, ?)", new)
            rows = connection.execute(
                "SELECT token, number, expires FROM participants WHERE invited ORDER BY made, rowid"
            ).fetchall()
        return [Invitation(token, number is not None, until) for token, number, until in rows]

    def join(self) -> str:
        """Take part without an invitation; the new token.

        Raises:
            RefusedError: If there are invitations.
        """
        if not self.is_open():
            raise RefusedError("the study has invitations; use the address of one", "closed")
        token = secrets.token_urlsafe(TOKEN_BYTES)
        with self._transaction() as connection:
            connection.execute("INSERT INTO participants VALUES (?, NULL, 0, ?, NULL)", (token, self._clock()))
        return token

    def participant(self, token: str) -> int:
        """The number of a participant, who gets the next one at first.

        Raises:
            RefusedError: If nobody has been given the token, or it has expired.
        """
        with self._mutex:
            query = "SELECT number, expires FROM participants WHERE token = ?"
            row = self._connection.execute(query, (token,)).fetchone()
        if row is None:
            raise RefusedError("no such invitation", "unknown")
        number, expires = row
        if expires is not None and expires < self._clock():
            raise RefusedError("the invitation has expired", "expired")
        if number is not None:
            return int(number)
        with self._transaction() as connection:
            connection.execute(
                "UPDATE participants SET number = (SELECT ifnull(max(number), -1) + 1 FROM participants) "
                "WHERE token = ? AND number IS NULL",
                (token,),
            )
            return int(connection.execute(query, (token,)).fetchone()[0])

    def position(self, number: int) -> int:
        """How many pairs a participant has answered, which is the place of the next one."""
        with self._mutex:
            query = "SELECT count(*) FROM answers WHERE number = ? AND chosen IS NOT NULL"
            return int(self._connection.execute(query, (number,)).fetchone()[0])

    def show(self, number: int, position: int) -> float:
        """Note that a participant sees a pair from now on; for how many seconds it is to be looked at.

        A pair that is shown again, as after a page was closed, is looked at anew. One that is answered stays so.

        Raises:
            RefusedError: If it is not the next pair.
        """
        pair = self._pair(number, position)
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, NULL, NULL) "
                "ON CONFLICT DO UPDATE SET shown = excluded.shown WHERE chosen IS NULL",
                (number, position, pair.name, pair.left, pair.right, self._clock()),
            )
        return self._study.facts.look

    def answer(self, number: int, position: int, side: str) -> str:
        """Store an answer; the role that was chosen is on the disk when this returns.

        An answer that is sent again changes nothing: the first one stays, and is returned.

        Args:
            number: The participant's.
            position: The place of the pair, from 0.
            side: "left" or "right".

        Raises:
            RefusedError: If it is not the pair's turn, or it has not been looked at for long enough.
        """
        pair = self._pair(number, position)
        chosen = pair.left if side == "left" else pair.right
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT shown, chosen FROM answers WHERE number = ? AND position = ?", (number, position)
            ).fetchone()
            if row is None:
                raise RefusedError("the pair has not been shown", "order")
            shown, stored = row
            if stored is not None:
                return str(stored)
            now = self._clock()
            if now - shown < self._study.facts.look:
                wait = min(self._study.facts.look, self._study.facts.look - (now - shown))
                raise RefusedError(f"the pair is to be looked at for {wait:.1f} s more", "early", wait)
            connection.execute(
                "UPDATE answers SET chosen = ?, answered = ? WHERE number = ? AND position = ?",
                (chosen, now, number, position),
            )
        return chosen

    def _pair(self, number: int, position: int) -> Pair:
        """The pair at a place; RefusedError if it comes after the next one."""
        if not 0 <= position < len(self._study) or position > self.position(number):
            raise RefusedError(f"pair {position} is not the next one", "order")
        return self._study.pairs(number)[position]


@contextmanager
def open_store(path: str | Path, study: Study, clock: Callable[[], float] = time.time) -> Iterator[Store]:
    """Open the database of a study, which is made if there is none, for this process alone.

    Args:
        path: The file.
        study: The study.
        clock: Seconds since 1970.

    Raises:
        InputError: If it can't be written, is none of a study, is of another study or of another format, or another
            process has it.
    """
    path = Path(path)
    check_files([path])
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        real = path.resolve()  # so that links to it have one lock
        with locked(real.parent, f".{real.name}.lock"):
            connection = _connect(path)
            try:
                _prepare(connection, path, study, clock())
                yield Store(connection, study, clock)
            finally:
                connection.close()
    except BusyError:
        raise InputError(f"another server has {path}; end it, or give another --database") from None


def read_facts(connection: sqlite3.Connection, path: str | Path) -> tuple[str, Facts]:
    """The fingerprint and the facts of the study in a database.

    Raises:
        InputError: If it is the database of no study, or of another format.
    """
    try:
        application, version = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in IDENTITY)
        if (application, version) == (APPLICATION, FORMAT):
            fingerprint, facts = connection.execute("SELECT fingerprint, facts FROM study").fetchone()
            return fingerprint, Facts(**json.loads(facts))
    except sqlite3.OperationalError as error:
        raise InputError(f"{path} can't be read ({error}); free it, or give another database") from None
    except (sqlite3.DatabaseError, TypeError, ValueError):
        raise InputError(f"{path} is no database of a study, or damaged; give another") from None
    if application != APPLICATION:
        raise InputError(f"{path} is no database of a study; give one that latentdiff study has made")
    raise InputError(
        f"{path} is of format {version}, and this latentdiff reads format {FORMAT}; use the version that made it, or "
        "begin another database"
    )


def _connect(path: Path) -> sqlite3.Connection:
    # Transactions are ours to begin and end, and a mutex of `Store` lets one thread in at a time.
    return sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)


def _prepare(connection: sqlite3.Connection, path: Path, study: Study, now: float) -> None:
    """Make the tables of a new database, or check that an old one is of this study."""
    try:
        is_new = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path} is no SQLite file ({error}); give another --database") from None
    if not is_new:
        fingerprint, facts = read_facts(connection, path)
        if fingerprint != study.fingerprint:
            raise InputError(
                f"{path} is of another study ({_differences(facts, study.facts)}); give another --database, or the "
                "folders and options of that one"
            )
    # With WAL a reader such as the report doesn't block answers; FULL syncs the log at every commit.
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    if is_new:
        connection.executescript(
            f"BEGIN IMMEDIATE; {TABLES} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT};"
        )
        row = (study.fingerprint, json.dumps(asdict(study.facts)), now)
        connection.execute("INSERT INTO study VALUES (?, ?, ?)", row)
        connection.execute("COMMIT")


def _differences(old: Facts, new: Facts) -> str:
    """In what options two studies differ."""
    before, after = asdict(old), asdict(new)
    different = [
        f"{name} was {before[name]!r} and is {after[name]!r}"
        for name in before
        if name != "labels" and before[name] != after[name]
    ]
    return ", ".join(different) or "its images were others"
