"""The store: files whole or absent, damage recognised before use, writers apart."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from simrlhf.core.checks import InputError
from simrlhf.study import provenance, results, store
from simrlhf.study.store import Store, content_key, row_key

FACTS = {"simrlhf": "0", "code": "aaa", "jax": "0.10.2", "numpy": "2.1", "scipy": "1.14"}


def _row(key: str, value: float = 1.0, status: str = "CONVERGED") -> dict:
    return {"key": key, "value": value, "status": status}


def _write(folder: Path, *keys: str) -> Path:
    return Store(folder).write([_row(key) for key in keys], facts=FACTS)


def test_half_written_files_are_never_read(tmp_path: Path) -> None:
    _write(tmp_path, "a")
    (tmp_path / ".half.partial").write_bytes(b"PAR1 and then the machine stopped")
    assert Store(tmp_path).keys() == {"a"}
    assert len(Store(tmp_path).read().rows) == 1


def test_a_bit_flipped_anywhere_is_recognised(tmp_path: Path) -> None:
    path = _write(tmp_path, "a", "b")
    content = path.read_bytes()
    undamaged = Store(tmp_path).read().rows
    for place in np.linspace(0, len(content) - 1, 60).astype(int):
        flipped = bytearray(content)
        flipped[place] ^= 1 << (place % 8)
        path.write_bytes(bytes(flipped))
        found = Store(tmp_path).read()
        assert found.rows.empty
        assert found.damaged == [path]
        assert Store(tmp_path).keys() == set()
    path.write_bytes(content)
    assert Store(tmp_path).read().rows.equals(undamaged)


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_cut_file_is_set_aside_and_the_others_live(tmp_path: Path, kept: int) -> None:
    path, other = _write(tmp_path, "a"), _write(tmp_path, "b")
    path.write_bytes(path.read_bytes()[:kept])
    assert Store(tmp_path).keys() == {"b"}
    assert path.exists()  # reading leaves it where it is
    aside = Store(tmp_path).set_aside(Store(tmp_path).read().damaged)
    assert aside == [tmp_path / "damaged" / path.name]
    assert aside[0].exists()
    assert sorted(tmp_path.glob("*.parquet")) == [other]
    # another sweep moved the one meanwhile, and wrote the other anew
    assert Store(tmp_path).set_aside([path, other]) == []
    assert other.exists()


def test_what_a_killed_writer_left_is_removed_once_it_is_old(tmp_path: Path) -> None:
    _write(tmp_path, "a")
    young, old = tmp_path / ".young.partial", tmp_path / ".old.partial"
    for path in (young, old):
        path.write_bytes(b"half")
    os.utime(old, (0, time.time() - 2 * 3600))
    Store(tmp_path).remove_leftovers()
    assert young.exists()  # its writer may live
    assert not old.exists()


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    _write(tmp_path, "a")
    before = sorted(tmp_path.iterdir())

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(store.os, failing, full)
    with pytest.raises(InputError, match=r"cannot write results .*No space left.* are kept"):
        _write(tmp_path, "b")
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_in_the_way_of_the_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "rows").touch()
    with pytest.raises(InputError, match=r"cannot write results to .*rows \(.*another --out"):
        _write(tmp_path / "rows", "a")


def test_a_folder_named_like_a_results_file_is_none(tmp_path: Path) -> None:
    path = _write(tmp_path, "a")
    (tmp_path / "x.parquet").mkdir()
    found = Store(tmp_path).read()
    assert found.keys() == {"a"}
    assert found.damaged == []
    assert Store(tmp_path).size() == path.stat().st_size


def test_a_file_that_goes_while_sizes_are_summed_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _write(tmp_path, "a")
    monkeypatch.setattr(Store, "_files", lambda _: [tmp_path / "gone.parquet", path])
    assert Store(tmp_path).size() == path.stat().st_size


def test_an_interrupted_write_leaves_no_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(store.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        _write(tmp_path, "a")
    assert list(tmp_path.iterdir()) == []


def test_rows_written_twice_count_once_and_carry_provenance(tmp_path: Path) -> None:
    path = _write(tmp_path, "a")
    _write(tmp_path, "a", "b")
    assert sorted(Store(tmp_path).read().rows["key"]) == ["a", "b"]
    facts = (pq.read_schema(path).metadata or {})[b"simrlhf.provenance"]
    assert json.loads(facts) == FACTS


def test_a_row_that_succeeded_hides_its_failed_twin(tmp_path: Path) -> None:
    for status in ("FAILED", "CONVERGED", "FAILED"):
        Store(tmp_path).write([_row("a", float(len(status)), status)], facts=FACTS)
    rows = Store(tmp_path).read().rows
    assert rows["status"].tolist() == ["CONVERGED"]


def test_failed_rows_count_as_stored_unless_they_are_to_be_tried_again(tmp_path: Path) -> None:
    Store(tmp_path).write([_row("a"), _row("b", status="FAILED")], facts=FACTS)
    assert Store(tmp_path).keys() == {"a", "b"}
    assert Store(tmp_path).read().keys(but_failed=True) == {"a"}
    assert Store(tmp_path).read(["b", "c"]).keys(but_failed=True) == set()
    assert Store(tmp_path / "none").read().of(["a"]).keys(but_failed=True) == set()


def test_what_a_failed_row_lacks_is_null_and_integers_stay_integers(tmp_path: Path) -> None:
    good = {"key": "a", "status": "CONVERGED", "steps": 2**53 + 1, "message": None}
    bad = {"key": "b", "status": "FAILED", "message": "why"}
    path = Store(tmp_path).write([good, bad], facts=FACTS)
    table = pq.read_table(path)
    assert table.column("steps").to_pylist() == [2**53 + 1, None]
    # a file without failures has no text in `message`: the two are read together
    Store(tmp_path).write([good | {"key": "c"}], facts=FACTS)
    rows = Store(tmp_path).read().rows.set_index("key")
    assert rows.loc["b", "message"] == "why"
    assert rows.loc[["a", "c"], "message"].isna().all()
    assert rows["steps"].isna().tolist() == [key == "b" for key in rows.index]


def test_rows_of_different_programs_are_refused_unless_accepted(tmp_path: Path) -> None:
    folder = Store(tmp_path)
    folder.write([_row("a")], facts=FACTS)
    # another machine, Python or patch release does not count; the code and the libraries do
    folder.write([_row("b")], facts=FACTS | {"host": "other", "numpy": "2.1.7", "python": "3.13"})
    results.require_one_program(folder.read(), tmp_path)
    results.require_one_program(folder.read(), tmp_path, joining=FACTS)
    with pytest.raises(InputError, match=r"2 by .*the others would be by .*code bbb"):
        results.require_one_program(folder.read(), tmp_path, joining=FACTS | {"code": "bbb"})
    folder.write([_row("c")], facts=FACTS | {"jax": "0.11.0"})
    with pytest.raises(InputError, match=r"2 by simrlhf 0 .*jax 0\.10\.2.*; 1 by .*jax 0\.11\.0"):
        results.require_one_program(folder.read(), tmp_path)
    # rows that are not asked for do not matter
    results.require_one_program(folder.read({"a", "b"}), tmp_path)


def test_the_program_is_known_by_its_source() -> None:
    facts = provenance.provenance()
    assert len(facts["code"]) == 12
    assert facts["code"] == provenance.code_digest()
    assert provenance.identity(facts).keys() == {"code", "jax", "numpy", "scipy"}
    assert provenance.identity({"numpy": "2.4.6", "code": "ab"})["numpy"] == "2.4"


def test_the_digest_of_the_code_changes_with_a_deciding_file_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    import simrlhf

    copy = tmp_path / "simrlhf"
    shutil.copytree(Path(simrlhf.__file__).parent, copy)
    monkeypatch.setattr(provenance.simrlhf, "__file__", str(copy / "__init__.py"))
    digest = provenance.code_digest.__wrapped__
    original = digest()
    for name, matters in (("study/terminal.py", False), ("cli.py", False), ("core/links.py", True)):
        (copy / name).write_text((copy / name).read_text() + "\n# changed\n")
        assert (digest() != original) is matters, name


def test_a_content_key_changes_with_everything_it_describes() -> None:
    one = content_key({"n_pairs": 10, "world": {"nu": 1.0}})
    assert one == content_key({"world": {"nu": 1.0}, "n_pairs": 10})
    assert one != content_key({"n_pairs": 10, "world": {"nu": 1.0 + 1e-12}})
    assert row_key(one, "0/10/full") != row_key(one, "1/10/full")


def test_a_number_hashes_alike_however_it_is_written() -> None:
    assert content_key({"norm_bound": 3, "n": [1, 2.0]}) == content_key(
        {"norm_bound": 3.0, "n": (1.0, 2)}
    )
    assert content_key({"soft": True}) != content_key({"soft": False})
