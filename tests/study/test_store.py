import os
import sqlite3

import pytest

from latentdiff.errors import InputError
from latentdiff.study.report import report_study
from latentdiff.study.store import FORMAT, SECONDS_A_DAY, RefusedError, open_store
from latentdiff.study.study import open_study


@pytest.fixture
def path(tmp_path):
    return tmp_path / "study.db"


@pytest.fixture
def store(path, study, clock):
    with open_store(path, study, clock) as store:
        yield store


def refused(reason, call, *arguments):
    with pytest.raises(RefusedError) as told:
        call(*arguments)
    assert told.value.reason == reason
    return told.value


def rows(path, query="SELECT number, position, chosen, answered - shown FROM answers ORDER BY number, position"):
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def test_participants_are_numbered_as_they_come(store):
    tokens = [store.join() for _ in range(3)]
    assert len(set(tokens)) == 3
    assert [store.participant(token) for token in (tokens[2], tokens[0], tokens[1], tokens[0])] == [0, 1, 2, 1]


@pytest.mark.parametrize("token", ["", "x", "x' OR '1'='1"])
def test_an_unknown_token(store, token):
    store.join()
    refused("unknown", store.participant, token)


def test_an_answer_is_taken_once_the_pair_was_looked_at(store, path, study, clock):
    number = store.participant(store.join())
    assert store.show(number, 0) == 3.0
    clock.now += 2.75
    early = refused("early", store.answer, number, 0, "left")
    assert early.wait == pytest.approx(0.25)
    assert store.position(number) == 0
    clock.now += 0.25
    assert store.answer(number, 0, "left") == study.pairs(number)[0].left
    assert store.position(number) == 1
    assert rows(path) == [(0, 0, study.pairs(number)[0].left, 3.0)]


def test_the_first_answer_stays(store, path, study, clock):
    number = store.participant(store.join())
    store.show(number, 0)
    clock.now += 5
    first = store.answer(number, 0, "right")
    clock.now += 5
    assert store.answer(number, 0, "right") == store.answer(number, 0, "left") == first == study.pairs(0)[0].right
    store.show(number, 0)  # a page of before
    assert rows(path) == [(0, 0, first, 5.0)]


def test_a_pair_that_is_shown_again_is_looked_at_anew(store, path, clock):
    number = store.participant(store.join())
    store.show(number, 0)
    clock.now += 100
    store.show(number, 0)
    clock.now += 2.5
    refused("early", store.answer, number, 0, "left")
    clock.now += 1.5
    store.answer(number, 0, "left")
    assert rows(path)[0][-1] == 4.0


def test_a_clock_that_is_put_back_keeps_nobody_waiting_for_longer_than_a_look(store, clock):
    number = store.participant(store.join())
    store.show(number, 0)
    clock.now -= 3600
    assert refused("early", store.answer, number, 0, "left").wait == 3.0


def test_only_the_next_pair_is_shown_and_answered(store, study, clock):
    number = store.participant(store.join())
    refused("order", store.answer, number, 0, "left")  # it has not been shown
    refused("order", store.show, number, 1)
    refused("order", store.show, number, -1)
    for position in range(len(study)):
        store.show(number, position)
        clock.now += 3
        store.answer(number, position, "left")
    assert store.position(number) == len(study) == 6
    refused("order", store.show, number, len(study))
    refused("order", store.answer, number, len(study), "left")


def test_invitations_are_made_once(path, study, clock):
    with open_store(path, study, clock) as store:
        assert store.is_open() and store.invite(0) == []
        first = store.invite(3)
        assert not store.is_open()
        refused("closed", store.join)
        assert store.invite(3) == store.invite(0) == first
        store.participant(first[1].token)
    with open_store(path, study, clock) as store:
        more = store.invite(5)
        assert [invitation.token for invitation in more[:3]] == [invitation.token for invitation in first]
        assert [invitation.started for invitation in more] == [False, True, False, False, False]


def test_who_joined_before_there_were_invitations_goes_on(store):
    token = store.join()
    store.invite(1)
    assert store.participant(token) == 0


@pytest.mark.parametrize(("seconds", "valid"), [(-1, True), (0, True), (1, False)])
def test_an_invitation_expires(store, clock, seconds, valid):
    (invitation,) = store.invite(1, days=2)
    clock.now += 2 * SECONDS_A_DAY + seconds
    if valid:
        assert store.participant(invitation.token) == 0
    else:
        refused("expired", store.participant, invitation.token)


def test_the_same_study_goes_on(path, study, folders, clock):
    with open_store(path, study, clock) as store:
        token = store.join()
        store.show(store.participant(token), 0)
        clock.now += 3
        store.answer(0, 0, "left")
    again = open_study(folders.ours, folders.theirs, folders.truth, pairs=4, checks=2)
    with open_store(path, again, clock) as store:
        assert store.position(store.participant(token)) == 1


def opening_fails(path, study, message):
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(InputError) as told, open_store(path, study):
        pass
    assert message in str(told.value)
    assert before is None or path.read_bytes() == before


def test_another_study_on_the_database_is_refused(path, study, folders):
    with open_store(path, study):
        pass
    other = open_study(folders.ours, folders.theirs, folders.truth, pairs=5, checks=2)
    opening_fails(path, other, "is of another study (pairs_each was 4 and is 5); give another --database")
    (folders.ours / "a.png").write_bytes((folders.ours / "b.png").read_bytes())
    other = open_study(folders.ours, folders.theirs, folders.truth, pairs=4, checks=2)
    opening_fails(path, other, "is of another study (its images were others)")


def test_a_second_server_on_the_database_is_refused(path, study):
    with open_store(path, study) as store:
        opening_fails(path, study, f"another server has {path}; end it")
        link = path.with_name("link.db")
        link.symlink_to(path)
        opening_fails(link, study, f"another server has {link}; end it")
        store.join()
    with open_store(path.with_name("other.db"), study), open_store(path, study):
        pass  # databases in one folder don't mind one another


@pytest.mark.parametrize("version", [FORMAT - 1, FORMAT + 1])
def test_a_database_of_another_version_is_refused(path, study, version):
    with open_store(path, study):
        pass
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()
    message = f"is of format {version}, and this latentdiff reads format {FORMAT}"
    opening_fails(path, study, message)
    with pytest.raises(InputError, match=message):
        report_study(path)


def test_what_is_no_database_of_a_study_is_refused(path, study, tmp_path):
    path.write_text("no database at all, but a text that is long enough to have a header")
    opening_fails(path, study, "is no SQLite file")
    with pytest.raises(InputError, match="is no database of a study"):
        report_study(path)
    other = tmp_path / "other.db"
    connection = sqlite3.connect(other)
    connection.execute("CREATE TABLE study (mine TEXT)")
    connection.close()
    opening_fails(other, study, "is no database of a study; give one that latentdiff study has made")
    with pytest.raises(InputError, match="is no database of a study"):
        report_study(other)
    opening_fails(tmp_path, study, "it is a folder; choose another output path")
    with pytest.raises(InputError, match="is no file"):
        report_study(tmp_path / "nothing.db")


def test_a_damaged_database_is_refused(path, study):
    with open_store(path, study):
        pass
    content = bytearray(path.read_bytes())
    content[4096:] = bytes(len(content) - 4096)
    path.write_bytes(content)
    opening_fails(path, study, "is no database of a study, or damaged")


def test_an_empty_file_becomes_a_database(path, study):
    path.touch()
    with open_store(path, study) as store:
        assert store.participant(store.join()) == 0


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing keeps root from writing")
def test_a_folder_that_can_t_be_written(path, study):
    path.parent.chmod(0o500)
    opening_fails(path, study, "cannot write")
    path.parent.chmod(0o700)
