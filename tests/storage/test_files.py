"""URLs: an object is written whole or not at all, and a digest follows its content."""

import errno
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import files
from pipeline.errors import StoreError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def test_what_is_written_is_read_back_and_nothing_else_is_left(tmp_path):
    url = str(tmp_path / "a" / "b" / "object.bin")
    for data in (b"first", b"", b"another, longer"):
        files.write_bytes(url, data)
        assert files.read_bytes(url) == data
        assert files.list_folder(str(tmp_path / "a" / "b")) == ["object.bin"]


def test_a_reader_never_sees_a_part(tmp_path):
    url, size = str(tmp_path / "object.bin"), 200_000
    files.write_bytes(url, bytes(size))
    over = threading.Event()

    def write():
        for byte in range(1, 41):
            files.write_bytes(url, bytes([byte]) * size)
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    odd = []
    while not over.is_set():
        seen = files.read_bytes(url)
        if len(seen) != size or len(set(seen)) != 1:
            odd.append((len(seen), set(seen)))
    writer.join()
    assert not odd
    assert files.list_folder(str(tmp_path)) == ["object.bin"]


def test_a_write_that_fails_leaves_the_old_object_and_no_part(tmp_path, monkeypatch):
    url = str(tmp_path / "object.bin")
    files.write_bytes(url, b"old")

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(StoreError, match="No space left on device"):
        files.write_bytes(url, b"new")
    assert files.read_bytes(url) == b"old"
    assert files.list_folder(str(tmp_path)) == ["object.bin"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    url = str(tmp_path / "file" / "workspace" / "begun.json")
    with pytest.raises(StoreError) as caught:
        files.write_bytes(url, b"")
    assert str(caught.value).startswith(f"{url}: cannot be written: ")
    assert "--workspace" in caught.value.remedy
    assert "\n" not in str(caught.value)


def test_what_is_not_there_reads_as_nothing(tmp_path):
    (tmp_path / "file").write_text("{half")
    for absent in ("nowhere.json", "file/below.json", "no/folder.json"):
        assert files.read_json(str(tmp_path / absent)) is None
    assert files.list_folder(str(tmp_path / "nowhere")) == []
    assert not files.exists(str(tmp_path / "file" / "below"))
    files.remove(str(tmp_path / "nowhere"))


def test_a_folder_is_removed_with_all_in_it(tmp_path):
    files.write_bytes(str(tmp_path / "a" / "b" / "c"), b"1")
    files.remove(str(tmp_path / "a"))
    assert files.list_folder(str(tmp_path)) == []


def test_an_object_store_is_written_in_one_request():
    url = "memory://bucket/experiment/manifest.json"
    files.write_json(url, {"one": 1})
    assert files.read_json(url) == {"one": 1}
    assert files.list_folder("memory://bucket/experiment") == ["manifest.json"]
    files.remove("memory://bucket")
    assert not files.exists(url)


def test_urls_are_joined_and_local_paths_made_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert files.join("s3://bucket/a/", "b", "c.json") == "s3://bucket/a/b/c.json"
    assert files.make_absolute("s3://bucket/a") == "s3://bucket/a"
    assert files.make_absolute("a/b") == str(tmp_path / "a" / "b")


def test_a_digest_follows_the_content_not_the_name(tmp_path):
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    files.write_bytes(one, b"same")
    files.write_bytes(two, b"same")
    assert files.content_digest(one) == files.content_digest(two) == files.sha256(b"same")
    files.write_bytes(two, b"other")
    assert files.content_digest(one) != files.content_digest(two)


@given(tree=st.dictionaries(st.text(max_size=5), JSON, max_size=6))
def test_a_digest_does_not_depend_on_the_order_of_keys(tree):
    assert files.sha256_of_json(dict(reversed(tree.items()))) == files.sha256_of_json(tree)


def test_a_damaged_receipt_means_that_its_work_is_done_again(tmp_path):
    for data in (b"", b"{half", b"[]", b"null"):
        files.write_bytes(str(tmp_path / "1.json"), data)
        assert files.read_receipt(str(tmp_path / "1.json")) is None


def test_a_file_written_in_place_is_whole_or_as_before(tmp_path):
    url = str(tmp_path / "new" / "a.nc")

    def write(content, error=None):
        with files.written_whole(url) as path:
            Path(path).write_text(content)
            if error:
                raise error

    write("first")
    with pytest.raises(KeyError):
        write("half", KeyError("of the writer"))
    with pytest.raises(StoreError, match=r"a\.nc: cannot be written: No space left on device"):
        write("half", OSError(errno.ENOSPC, "No space left on device"))
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.nc"]
    assert Path(url).read_text() == "first"
