"""Which files a path stands for: links, side files, and what must not be left out in silence."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from presence_ds.data import DataConfig, SourceConfig, open_corpus, prepare_corpus
from presence_ds.data.sources.finding import find_files
from presence_ds.data.sources.python_packages import find_modules
from presence_ds.errors import DataError

LINE = '{"text": "one"}\n'


def write(path: Path, content: str = LINE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return path


def link(path: Path, to: str | Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(to)
    return path


def names(*paths: str | Path) -> list[str]:
    return [file.name for file in find_files(SourceConfig("s", [str(path) for path in paths]))]


def error_of(path: str | Path, **fields: str) -> str:
    with pytest.raises(DataError) as caught:
        find_files(SourceConfig("s", str(path), **fields))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_links_are_followed_in_folders_and_globs(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    write(texts / "here" / "a.jsonl")
    write(tmp_path / "elsewhere" / "deep" / "b.jsonl")
    write(tmp_path / "c.jsonl.blob")
    link(texts / "there", "../elsewhere")
    link(texts / "c.jsonl", tmp_path / "c.jsonl.blob")
    found = ["c.jsonl", "here/a.jsonl", "there/deep/b.jsonl"]
    assert names(texts) == names(f"{texts}/**/*.jsonl") == names(f"{texts}/**") == found
    assert names(link(tmp_path / "whole", texts)) == found
    assert names(f"{texts}/*/deep/*.jsonl") == ["there/deep/b.jsonl"]


def test_snapshot_of_the_hub_is_read_once_however_many_there_are(tmp_path: Path) -> None:
    repository = tmp_path / "datasets--someone--texts"
    for blob in ("0a", "0b"):
        write(repository / "blobs" / blob)
    for revision, files in (("1111", {"a": "0a"}), ("2222", {"a": "0a", "b": "0b"})):
        for name, blob in files.items():
            link(repository / "snapshots" / revision / "data" / f"{name}.jsonl", f"../../../blobs/{blob}")
    assert names(repository / "snapshots" / "2222") == ["data/a.jsonl", "data/b.jsonl"]
    assert names(repository) == ["snapshots/1111/data/a.jsonl", "snapshots/2222/data/b.jsonl"]


def test_circles_end_and_a_file_has_its_own_name_where_it_can(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    write(texts / "x" / "a.jsonl")
    write(texts / "y" / "b.jsonl")
    for folder, other in (("x", "y"), ("y", "x")):
        link(texts / folder / "again", f"../{other}")
        link(texts / folder / "up", "..")
    link(texts / "all", ".")
    link(texts / "0_first.jsonl", "x/a.jsonl")
    found = ["x/a.jsonl", "y/b.jsonl"]
    assert names(texts) == names(f"{texts}/**/*.jsonl") == names(texts, texts / "y") == found
    assert names(texts / "y", texts) == found[::-1]
    assert [name[-7:] for name in names(f"{texts}/**/again/*.jsonl")] == ["a.jsonl", "b.jsonl"]


def test_link_to_nowhere_is_named(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    write(texts / "a.jsonl")
    link(texts / "notes.pdf", "gone.pdf")  # no data
    link(texts / ".#a.jsonl", "somebody@a.machine")  # an editor's lock
    assert names(texts) == ["a.jsonl"]
    for name in ("b.jsonl.gz", "folder"):
        dangling = link(texts / name, f"/mnt/lost/{name}")
        message = f"{dangling} is a link to /mnt/lost/{name}, which does not exist: bring that back, or remove the link"
        for path in (texts, f"{texts}/**/*.jsonl*", f"{texts}/*", dangling):
            if name != "folder" or "jsonl" not in str(path) or "**" not in str(path):
                assert message in error_of(path)
        dangling.unlink()
    link(texts / "round", "round")
    assert "round is a link to round, which does not exist" in error_of(texts)


def test_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "shut" / "a.jsonl")
    write(tmp_path / "b.jsonl")
    listed = os.scandir

    def scandir(path: str) -> object:  # permissions would not stop root
        if str(path).endswith("shut"):
            raise PermissionError(13, "Permission denied", str(path))
        return listed(path)

    monkeypatch.setattr(os, "scandir", scandir)
    assert f"{tmp_path}/shut cannot be listed (Permission denied)" in error_of(tmp_path)


def test_hub_folder_with_a_linked_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "dataset" / "a.jsonl")
    write(tmp_path / "elsewhere" / "b.jsonl")
    linked = link(tmp_path / "dataset" / "more", tmp_path / "elsewhere")
    assert f"holds {linked}, a link to a folder, which datasets does not follow" in error_of(
        tmp_path / "dataset", format="hub"
    )
    linked.unlink()
    link(tmp_path / "dataset" / "b.jsonl", "nowhere")
    assert "b.jsonl is a link to nowhere" in error_of(tmp_path / "dataset", format="hub")


def test_linked_packages_are_among_the_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "lib" / "own.py")
    write(tmp_path / "store" / "package" / "module.py")
    link(tmp_path / "lib" / "package", "../store/package")
    link(tmp_path / "lib" / "gone.py", "nowhere.py")
    link(tmp_path / "store" / "package" / "round", "..")
    monkeypatch.setattr("sysconfig.get_path", lambda kind: str(tmp_path / "lib"))
    assert sorted(name for _, name in find_modules()) == ["own.py", "package/module.py"]


def test_side_files_are_data_only_when_they_are_named(tmp_path: Path) -> None:
    side = [
        "README.md",
        "data/README_de.md",
        "license.txt",
        "dataset_infos.json",
        "data/dataset-card.md",
        "md5sums.txt",
    ]
    other = [
        "_SUCCESS",
        ".gitattributes",
        "data/.ipynb_checkpoints/train.jsonl",
        "_delta_log/0.json",
        "data/x.jsonl.crc",
    ]
    data = ["data/train.jsonl", "essays/licensing.md", "essays/readers.md", "readme_corpus.jsonl"]
    for name in (*side, *other, *data):
        write(tmp_path / name)
    for path in (str(tmp_path), f"{tmp_path}/**"):
        side_files: list[str] = []
        if "**" in path:
            for name in ("_SUCCESS", "_delta_log/0.json", "data/x.jsonl.crc"):
                (tmp_path / name).unlink()
        assert [file.name for file in find_files(SourceConfig("s", path), side_files=side_files)] == data
        assert side_files == sorted(str(tmp_path / name) for name in side)
    assert names(f"{tmp_path}/*.md") == ["README.md"]
    assert names(tmp_path / "README.md", f"{tmp_path}/essays/*.md") == ["README.md", *data[1:3]]


def test_folder_of_nothing_but_readmes_says_how_to_read_them(tmp_path: Path) -> None:
    readme = write(tmp_path / "a" / "README.md")
    write(tmp_path / "b" / "README.md")
    assert f"{readme} and the like are the only files with a known ending" in error_of(tmp_path)
    assert names(f"{tmp_path}/*/README.md") == ["a/README.md", "b/README.md"]


def test_side_files_are_listed_once_and_stand_in_the_report(
    make_config: Callable[..., DataConfig], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = make_config()
    docs = tmp_path / "dataset" / "data" / "docs.jsonl"
    write(docs, (tmp_path / "docs.jsonl").read_text())
    readme = write(tmp_path / "dataset" / "README.md", "---\nlicense: mit\n---\n# A card\n")
    config.sources = [SourceConfig("docs", str(tmp_path / "dataset"), id_field="id")]
    prepare_corpus(config, tmp_path / "corpus")
    assert capsys.readouterr().err.count(f'passed over beside the data of source "docs": {readme}\n') == 1
    report = open_corpus(tmp_path / "corpus").report
    assert report.train["docs"].skipped.side_files == [str(readme)]
    assert report.train["docs"].documents + report.validation["docs"].documents == 200


@pytest.mark.parametrize("name", ["b.jsonl.lz4", "b.parquet.zip", "b.txt.zstd"])
def test_unknown_compression_is_named(tmp_path: Path, name: str) -> None:
    write(tmp_path / "a.jsonl")
    path = write(tmp_path / name)
    for pattern in (tmp_path, path, f"{tmp_path}/b.*"):
        assert f"{path} ends in {path.suffix}, a compression that is not read: compress it as .gz .bz2 .xz .zst" in (
            error_of(pattern)
        )
    assert "a compression that is not read" in error_of(path, format=name.split(".")[1].replace("txt", "text"))


def test_name_that_is_not_utf8_can_be_stored(tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/caf\xe9.jsonl"
    with open(path, "wb") as file:
        file.write(LINE.encode())
    (name,) = names(tmp_path)
    assert name == "caf\\xe9.jsonl"
    name.encode()
