"""The journal of label planes: what was appended comes back, whatever happens to the end of the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from napari_unet_seg.core import journal as journal_module
from napari_unet_seg.core.errors import InputError, OutputError
from napari_unet_seg.core.journal import LABELS, Journal, Patch, Recorded, patch_of, read_journal

SHAPE = (3, 8, 9)


def patch(plane: int, top: int, left: int, values: Any, part: str = LABELS) -> Patch:
    values = np.asarray(values, np.uint16)
    box = slice(top, top + values.shape[0]), slice(left, left + values.shape[1])
    return Patch((plane,), box, values, part)


def begun(folder: Path, *patches: Patch) -> Journal:
    journal = Journal(folder)
    journal.rewrite(patches, SHAPE, np.uint16)
    return journal


def read(folder: Path) -> Recorded:
    found = read_journal(folder)
    assert found is not None
    return found


def stack(found: Recorded, part: str = LABELS) -> NDArray[Any]:
    return np.stack([found.plane((z,), part) for z in range(SHAPE[0])])


def the_file(folder: Path) -> Path:
    (path,) = folder.glob("journal-*.bin")
    return path


def test_what_was_painted_comes_back(tmp_path: Path) -> None:
    journal = begun(tmp_path, patch(0, 1, 2, [[5, 6], [7, 8]]))
    journal.append([patch(0, 2, 2, [[1]]), patch(2, 7, 8, [[9]])])
    found = read(tmp_path)
    assert (found.shape, found.dtype) == (SHAPE, np.uint16)
    assert found.planes() == [(0,), (2,)]
    assert found.plane((0,))[1:3, 2:4].tolist() == [[5, 6], [1, 8]]
    assert found.plane((2,))[7, 8] == 9
    assert not found.plane((1,)).any()


def test_an_empty_folder_and_a_missing_one_hold_nothing(tmp_path: Path) -> None:
    assert read_journal(tmp_path) is None
    assert read_journal(tmp_path / "missing") is None
    assert not Journal(tmp_path / "missing").is_begun


def test_parts_are_kept_beside_the_labels(tmp_path: Path) -> None:
    begun(
        tmp_path,
        patch(0, 0, 0, [[3]]),
        Patch((0,), (slice(0, 1), slice(1, 2)), np.ones((1, 1), np.uint8), "mask"),
    )
    found = read(tmp_path)
    assert found.parts == {LABELS, "mask"}
    assert found.plane((0,), "mask").dtype == np.uint8
    assert found.plane((0,), "mask").sum() == 1
    assert found.plane((0,)).sum() == 3


def test_a_single_image_has_one_plane_without_a_number(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.rewrite([Patch((), (slice(0, 2), slice(0, 3)), np.full((2, 3), 4))], (5, 6), np.int64)
    assert read(tmp_path).plane(()).sum() == 24


def test_only_what_is_not_zero_is_kept_of_a_plane() -> None:
    values = np.zeros((50, 60), int)
    assert patch_of((1,), values) is None
    values[10, 20], values[12, 25] = 1, 2
    found = patch_of((1,), values)
    assert found is not None
    assert found.box == (slice(10, 13), slice(20, 26))


def test_a_cut_at_any_byte_costs_the_last_record_only(tmp_path: Path) -> None:
    journal = begun(tmp_path, patch(0, 0, 0, [[1, 2]]))
    before = the_file(tmp_path).stat().st_size
    journal.append([patch(0, 0, 0, [[7, 7]])])
    whole = the_file(tmp_path).read_bytes()
    for length in range(before, len(whole)):
        the_file(tmp_path).write_bytes(whole[:length])
        assert read(tmp_path).plane((0,))[0, :2].tolist() == [1, 2], length
        assert read(tmp_path).n_bytes == before
    the_file(tmp_path).write_bytes(whole)
    assert read(tmp_path).plane((0,))[0, :2].tolist() == [7, 7]


@settings(max_examples=50)
@given(data=st.data())
def test_a_damaged_byte_costs_its_record_and_what_follows(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal = begun(folder)
    lengths = [the_file(folder).stat().st_size]
    for value in (1, 2, 3):
        journal.append([patch(0, 0, value, [[value]])])
        lengths.append(the_file(folder).stat().st_size)
    whole = bytearray(the_file(folder).read_bytes())
    at = data.draw(st.integers(lengths[0], len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    the_file(folder).write_bytes(whole)
    n_whole = sum(length <= at for length in lengths) - 1
    assert read(folder).plane((0,))[0, 1:4].tolist() == [1, 2, 3][:n_whole] + [0] * (3 - n_whole)


@pytest.mark.parametrize("length", [1, 30, 59])
def test_after_a_cut_it_goes_on_behind_what_is_whole(tmp_path: Path, length: int) -> None:
    begun(tmp_path, patch(0, 0, 0, [[1]])).append([patch(1, 0, 0, [[2]])])
    path = the_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-length])
    Journal(tmp_path).append([patch(2, 0, 0, [[3]])])
    assert stack(read(tmp_path))[:, 0, 0].tolist() == [1, 0, 3]


Operation = Callable[[Journal, NDArray[Any]], None]


@st.composite
def operations(draw: st.DrawFn) -> list[tuple[str, list[Patch]]]:
    """Batches of boxes, now and then compacted, begun again from the reader's side, or cut off."""
    made = []
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["append", "append", "append", "compact", "reopen", "cut"]))
        patches = []
        for _ in range(draw(st.integers(1, 3)) if kind == "append" else 0):
            height, width = draw(st.integers(1, 8)), draw(st.integers(1, 9))
            top, left = draw(st.integers(0, 8 - height)), draw(st.integers(0, 9 - width))
            seed = draw(st.integers(0, 1000))
            values = np.random.default_rng(seed).integers(0, 3, (height, width))
            patches.append(
                patch(draw(st.integers(0, 2)), top, left, values, draw(st.sampled_from([LABELS, "mask"])))
            )
        made.append((kind, patches))
    return made


@settings(max_examples=50)  # each writes files and waits for the disk
@given(made=operations())
def test_any_sequence_of_writes_reads_as_the_arrays_it_was_made_of(
    made: list[tuple[str, list[Patch]]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("journal")
    journal = begun(folder)
    expected = {LABELS: np.zeros(SHAPE, np.uint16), "mask": np.zeros(SHAPE, np.uint16)}
    for kind, patches in made:
        if kind == "append":
            journal.append(patches)
            for one in patches:
                expected[one.part][(*one.plane, *one.box)] = one.values
        elif kind == "compact":
            journal.compact()
        elif kind == "reopen":
            journal = Journal(folder)
        else:
            with the_file(folder).open("ab") as file:
                file.write(b"NUS\x1e and then the power went")
        for part, values in expected.items():
            np.testing.assert_array_equal(stack(read(folder), part), values)


def test_writing_anew_makes_it_small_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(journal_module, "_GROWN_BYTES", 2000)
    journal = begun(tmp_path)
    rng = np.random.default_rng(0)
    while not journal.is_grown:
        journal.append([patch(1, 0, 0, rng.integers(0, 9, (8, 9)))])
    before = stack(read(tmp_path)), the_file(tmp_path).stat().st_size
    journal.append([patch(0, 0, 0, [[4]])])
    journal.append([patch(0, 0, 0, [[0]])])
    journal.compact()
    assert not journal.is_grown
    assert the_file(tmp_path).stat().st_size < before[1] / 4
    assert read(tmp_path).planes() == [(1,)], "a plane that was erased is gone"
    np.testing.assert_array_equal(stack(read(tmp_path)), before[0])


def states_of_a_killed_rewrite(folder: Path) -> Iterator[str]:
    """Leave in the folder, one after the other, all that a kill in the middle of writing anew can leave."""
    (old,) = folder.glob("journal-*.bin")
    old_bytes = old.read_bytes()
    Journal(folder).compact()
    (new,) = folder.glob("journal-*.bin")
    new_bytes = new.read_bytes()
    assert old != new
    partial = folder / f".{new.name}.0123abcd.part"
    new.unlink()
    old.write_bytes(old_bytes)
    for length in range(0, len(new_bytes) + 1, 7):
        partial.write_bytes(new_bytes[:length])
        yield f"{length} bytes of the new file under its temporary name"
    partial.rename(new)
    yield "both files"
    new.write_bytes(new_bytes[:5])
    yield "a new file that a power cut has emptied"
    new.write_bytes(new_bytes)
    old.unlink()
    yield "the new file alone"


def test_a_kill_while_it_is_written_anew_costs_nothing(tmp_path: Path) -> None:
    journal = begun(tmp_path, patch(0, 1, 1, np.arange(12).reshape(3, 4)))
    journal.append([patch(2, 0, 0, [[5]]), patch(0, 1, 1, [[3]])])
    expected = stack(read(tmp_path))
    for state in states_of_a_killed_rewrite(tmp_path):
        np.testing.assert_array_equal(stack(read(tmp_path)), expected, state)
        copy = tmp_path / "copy"
        shutil.copytree(tmp_path, copy, ignore=lambda *_: ["copy"])
        again = Journal(copy)
        again.append([patch(1, 0, 0, [[6]])])
        again.compact()
        assert stack(read(copy))[1, 0, 0] == 6, state
        assert len(list(copy.iterdir())) == 1, f"{state}: what was left lying about is cleared"
        shutil.rmtree(copy)


@pytest.fixture
def small_files() -> Iterator[Callable[[int], None]]:
    """Lets no file grow beyond so many bytes: a full disk, as far as writing is concerned."""
    resource = pytest.importorskip("resource", reason="Windows cannot limit the size of files")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda n_bytes: resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_a_sentence_and_costs_nothing(
    tmp_path: Path, small_files: Callable[[int], None]
) -> None:
    journal = begun(tmp_path, patch(0, 0, 0, [[1]]))
    length = the_file(tmp_path).stat().st_size
    noise = patch(1, 0, 0, np.random.default_rng(0).integers(0, 9999, (8, 9)))
    for room in (0, 10, 60):
        small_files(length + room)
        with pytest.raises(OutputError, match=r"journal-000001\.bin' cannot be written"):
            journal.append([noise])
        with pytest.raises(OutputError, match="cannot be written"):
            journal.rewrite([noise], SHAPE, np.uint16)
        assert stack(read(tmp_path)).sum() == 1
    assert [path.name for path in tmp_path.iterdir()] == ["journal-000001.bin"]
    small_files(10_000_000)
    journal.append([noise])
    np.testing.assert_array_equal(read(tmp_path).plane((1,)), noise.values)


def test_a_folder_that_went_away_is_noticed_and_can_be_begun_again(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    journal = begun(folder, patch(0, 0, 0, [[1]]))
    assert journal.is_begun
    shutil.rmtree(folder)
    assert not journal.is_begun
    with pytest.raises(OutputError, match="cannot be written"):
        journal.append([patch(0, 0, 0, [[2]])])
    journal.rewrite([patch(0, 0, 0, [[2]])], SHAPE, np.uint16)
    assert stack(read(folder)).sum() == 2


def test_a_file_that_became_shorter_is_left_alone(tmp_path: Path) -> None:
    journal = begun(tmp_path, patch(0, 0, 0, [[1]]))
    the_file(tmp_path).write_bytes(b"")
    assert not journal.is_begun
    with pytest.raises(OutputError, match="changed by another program"):
        journal.append([patch(0, 0, 0, [[2]])])


def test_a_file_of_something_else_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "journal-000009.bin").write_bytes(b"something else entirely" * 10)
    assert read_journal(tmp_path) is None
    begun(tmp_path, patch(0, 0, 0, [[1]]))
    assert stack(read(tmp_path)).sum() == 1


def test_a_record_that_does_not_fit_the_stack_ends_the_journal(tmp_path: Path) -> None:
    journal = begun(tmp_path, patch(0, 0, 0, [[1]]))
    journal.append([patch(1, 7, 7, [[1, 1, 1]])])
    assert read(tmp_path).planes() == [(0,)]


def test_a_file_that_goes_while_it_is_read_is_a_sentence(tmp_path: Path) -> None:
    begun(tmp_path, patch(0, 0, 0, [[1]]))
    found = read(tmp_path)
    the_file(tmp_path).unlink()
    with pytest.raises(InputError, match="cannot be read"):
        found.plane((0,))
