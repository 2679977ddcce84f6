"""Which model formats pass, and pickles wherever they hide."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import tempfile
import tracemalloc
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hxmlops_evidence.digests import sha256_file
from hxmlops_evidence.errors import Refused
from hxmlops_evidence.formats import check_model_format
from hxmlops_evidence.pickles import pickle_in


class Harmful:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("loading a pickle runs what its maker wanted",)


@pytest.fixture
def model(tmp_path: Path, onnx_model: Callable[..., Any]) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.onnx").write_bytes(onnx_model().SerializeToString())
    (folder / "labels.txt").write_text("cat\ndog\nfish\n")
    return folder


def check(folder: Path, **policy: Any) -> None:
    check_model_format(folder, **{"allow": ["onnx"], "allow_pickles": [], **policy})


def test_an_innocent_onnx_model_passes(model: Path) -> None:
    check(model)


def test_a_folder_without_a_model_is_refused(model: Path) -> None:
    (model / "model.onnx").unlink()
    with pytest.raises(Refused, match=r"^format: no model in a format allowed here, which are: onnx"):
        check(model)


def test_a_format_that_is_not_allowed_is_refused(model: Path) -> None:
    with pytest.raises(Refused, match=r"^format: no model in a format allowed here, which are: none"):
        check(model, allow=[])


@pytest.mark.parametrize(
    ("flaw", "says"),
    [
        ({"external": True}, "has weights in other files"),
        ({"domain": "com.example"}, "needs operators of com.example, which are not ONNX's own"),
        ({"domain": "ai.onnx.contrib"}, "needs operators of ai.onnx.contrib"),
        ({"inputs": 2}, "must have exactly one input, a tensor of float32"),
        ({"inputs": 0}, "must have exactly one input, a tensor of float32"),
        ({"elements": 11}, "must have exactly one input, a tensor of float32"),
    ],
)
def test_an_onnx_model_that_needs_more_than_itself_is_refused(
    model: Path, onnx_model: Callable[..., Any], flaw: dict[str, Any], says: str
) -> None:
    (model / "model.onnx").write_bytes(onnx_model(**flaw).SerializeToString())
    with pytest.raises(Refused, match=rf"^format: model\.onnx: {says}"):
        check(model)


def test_an_onnx_model_of_more_than_2_gib_is_not_read(model: Path) -> None:
    with (model / "model.onnx").open("r+b") as file:
        file.truncate(1 << 31)
    with pytest.raises(Refused, match=r"^format: model\.onnx: larger than the 2 GiB"):
        check(model)


def test_every_onnx_file_is_looked_at(model: Path, onnx_model: Callable[..., Any]) -> None:
    (model / "sub").mkdir()
    (model / "sub" / "Second.ONNX").write_bytes(onnx_model(external=True).SerializeToString())
    with pytest.raises(Refused, match=r"^format: sub/Second\.ONNX: has weights in other files"):
        check(model)


@pytest.mark.parametrize("data", [b"\xff", b"\x0a\xff\xff", b"not onnx"])
def test_what_is_no_onnx_model_is_refused(model: Path, data: bytes) -> None:
    (model / "model.onnx").write_bytes(data)
    with pytest.raises(Refused, match=r"^format: model\.onnx: "):
        check(model)


def test_external_data_is_found_wherever_a_tensor_may_stand(model: Path, onnx_model: Callable[..., Any]) -> None:
    from onnx import TensorProto, helper

    outside = helper.make_tensor("t", TensorProto.FLOAT, [1], [1.0])
    outside.data_location = TensorProto.EXTERNAL
    node = helper.make_node("Constant", [], ["c"], value=outside)
    branch = helper.make_graph([node], "branch", [], [])
    sparse = helper.make_sparse_tensor(outside, helper.make_tensor("i", TensorProto.INT64, [1], [0]), [3])
    places: list[Callable[[Any], Any]] = [
        lambda onnx: onnx.graph.node.append(node),
        lambda onnx: onnx.graph.node.append(helper.make_node("If", ["x0"], ["z"], then_branch=branch)),
        lambda onnx: onnx.graph.node.append(helper.make_node("Constant", [], ["c"], sparse_value=sparse)),
        lambda onnx: onnx.graph.sparse_initializer.append(sparse),
        lambda onnx: onnx.functions.append(helper.make_function("", "f", [], [], [node], [])),
        lambda onnx: onnx.training_info.add().algorithm.initializer.append(outside),
    ]
    for place in places:
        onnx = onnx_model()
        place(onnx)
        (model / "model.onnx").write_bytes(onnx.SerializeToString())
        with pytest.raises(Refused, match="has weights in other files"):
            check(model)


def test_operators_of_others_are_found_inside_branches_and_functions(
    model: Path, onnx_model: Callable[..., Any]
) -> None:
    from onnx import helper

    node = helper.make_node("Custom", ["x0"], ["z"], domain="com.example")
    branch = helper.make_graph([node], "branch", [], [])
    places: list[Callable[[Any], Any]] = [
        lambda onnx: onnx.graph.node.append(helper.make_node("If", ["x0"], ["z"], then_branch=branch)),
        lambda onnx: onnx.functions.append(helper.make_function("", "f", [], [], [node], [])),
        lambda onnx: onnx.functions.append(helper.make_function("com.example", "f", [], [], [], [])),
    ]
    for place in places:
        onnx = onnx_model()
        place(onnx)
        (model / "model.onnx").write_bytes(onnx.SerializeToString())
        with pytest.raises(Refused, match=r"needs operators of com\.example"):
            check(model)


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def saved(array: Any, save: Callable[..., Any] = np.save) -> bytes:
    buffer = io.BytesIO()
    save(buffer, array)
    return buffer.getvalue()


def tarred(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        info = tarfile.TarInfo("data")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


HARMFUL = pickle.dumps(Harmful())
BY_HAND = b"cbuiltins\nprint\n(S'hello'\ntR."
SUSPECTS: dict[str, bytes] = {
    **{f"protocol {number}": pickle.dumps(Harmful(), number) for number in range(6)},
    **{f"data in protocol {number}": pickle.dumps({"weights": [1.5, 2]}, number) for number in range(6)},
    "by hand": BY_HAND,
    "an old-style instance": b"(S'hello'\nibuiltins\nprint\n.",
    "after numbers that Python reads otherwise": b"I0x1\n0" + BY_HAND,
    "after a long text": b"V" + b"x" * (1 << 21) + b"\n0" + BY_HAND,
    "after a memo set twice": b"I1\np0\nI1\np0\n00" + BY_HAND,
    "without an end": BY_HAND[:-1],
    "followed by rubbish": HARMFUL + b"\xff" * 100,
    "broken after the call": pickle.dumps(Harmful(), 0).rstrip(b".") + b"\xff",
    "a long one": b"N0" * 60_000 + BY_HAND,
    "PyTorch's zip": zipped(**{"archive/data.pkl": HARMFUL, "archive/data/0": b"\0" * 8}),
    "a zip, by content": zipped(weights=HARMFUL),
    "a zip behind something else": b"\x08\x07" * 50 + zipped(**{"data.pkl": HARMFUL}),
    "a pickle before a zip": HARMFUL + zipped(**{"innocent.txt": b"text"}),
    "a zip in a zip": zipped(inner=zipped(**{"data.pkl": HARMFUL})),
    "a damaged zip": zipped(weights=b"x" * 100).replace(b"x" * 100, b"y" * 100),
    "a NumPy array of objects": saved(np.array([{}], dtype=object)),
    "a NumPy record with an object": saved(np.array([(1, {})], dtype=[("a", "<i4"), ("b", "O")])),
    "NumPy arrays with one of objects": saved(np.array([{}], dtype=object), np.savez),
    "joblib, packed": zlib.compress(HARMFUL),
    "gzip": gzip.compress(HARMFUL),
    "bzip2": bz2.compress(HARMFUL),
    "xz": lzma.compress(HARMFUL),
    "lzma": lzma.compress(HARMFUL, lzma.FORMAT_ALONE),
    "tar": tarred(HARMFUL),
}
INNOCENT: dict[str, bytes] = {
    "nothing": b"",
    "labels": b"cat\ndog\nfish\n",
    "other labels": b"Iris-setosa\nIris-versicolor\nIris-virginica\n",
    "labels that are opcodes": b"Fish\nInsect\nReptile\n",
    "JSON": b'{"a": [1, 2]}',
    "a list in JSON": b"[1, 2]",
    "CSV": b"churn,state\nyes,CT\nno,ME\n",
    "Markdown": b"# Model\n\nReads well.\n",
    "a licence": b"Licensed under the Apache License\nNot yours.\n(see below)\n",
    "Python": b"import os\nclass A:\n    pass\n",
    "YAML": b"a: 1\nb: 2\n",
    "an x": b"x^2 + 1",
    "a NumPy array": saved(np.zeros((3, 4), dtype=np.float32)),
    "a NumPy array with an O in its values": saved(np.frombuffer(b"'O'" * 4, dtype=np.uint8)),
    "a NumPy array of records": saved(np.zeros(3, dtype=[("one", "<f4"), ("Other", "<i8")])),
    "NumPy arrays": saved(np.zeros(3), np.savez),
    "NumPy arrays, packed": saved(np.zeros(3), np.savez_compressed),
    "Parquet's beginning": b"PAR1\x15\x04\x15\x10",
    "zeros": bytes(1000),
}


@pytest.mark.parametrize("kind", SUSPECTS)
def test_a_pickle_is_found_by_its_content(kind: str, model: Path) -> None:
    (model / "data").write_bytes(SUSPECTS[kind])
    with pytest.raises(Refused, match=r"^format: data: it is .*; leave it out, or have its digest allowed"):
        check(model)


@pytest.mark.parametrize(
    "name", ["a.pkl", "a.PICKLE", "a.joblib", "a.pt", "a.pth", "sub/a.bin", "a.ckpt", ".git/a.dill"]
)
def test_a_pickle_is_found_by_its_name(name: str, model: Path) -> None:
    (model / name).parent.mkdir(exist_ok=True)
    (model / name).write_bytes(b"\0")
    with pytest.raises(Refused, match=r"its ending .* is that of pickles"):
        check(model)


@pytest.mark.parametrize("kind", INNOCENT)
def test_other_files_are_not_taken_for_pickles(kind: str, tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(INNOCENT[kind])
    assert pickle_in(tmp_path / "data") is None


def test_a_pickle_may_be_allowed_by_its_digest(model: Path) -> None:
    (model / "scaler.pkl").write_bytes(HARMFUL)
    allowed = sha256_file(model / "scaler.pkl")
    check(model, allow_pickles=[allowed])
    (model / "scaler.pkl").write_bytes(HARMFUL + b".")
    with pytest.raises(Refused, match=r"scaler\.pkl"):
        check(model, allow_pickles=[allowed])


def test_a_pickle_in_the_guise_of_an_onnx_model_is_found(model: Path) -> None:
    (model / "model.onnx").write_bytes(HARMFUL)
    with pytest.raises(Refused, match=r"model\.onnx: it is a pickle"):
        check(model)


PICKLED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40) | st.binary(max_size=40),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(deadline=None, max_examples=50)
@given(PICKLED, st.integers(0, pickle.HIGHEST_PROTOCOL))
def test_whatever_is_pickled_is_found(value: Any, protocol: int) -> None:
    with tempfile.NamedTemporaryFile() as file:
        file.write(pickle.dumps([value, Harmful()], protocol))
        file.flush()
        assert pickle_in(Path(file.name))


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.write(b"V")
        file.truncate(1 << 26)
    tracemalloc.start()
    assert pickle_in(tmp_path / "large") is None
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 << 20
