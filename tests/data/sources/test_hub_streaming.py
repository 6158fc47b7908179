"""Datasets of the hub read over the network, by the client libraries themselves, from a server in this process.

The clients read the server's address when they are imported. What uses them therefore runs in a process of its own.
"""

import gzip
import multiprocessing
import random
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from presence_ds.data import DataConfig, SourceConfig, StreamingConfig, TokenizerConfig, open_corpus, prepare_corpus
from presence_ds.data.readers import hub_file
from presence_ds.data.readers.documents import Document
from presence_ds.data.sources.finding import find_files
from presence_ds.data.streaming.documents import Cursor
from presence_ds.data.tokenizer.training import train_tokenizer
from presence_ds.errors import DataError
from presence_ds.trainer.run_directory.hub_commits import pin_commits
from tests.data.conftest import make_text
from tests.data.sources.files import COMPRESS
from tests.data.sources.hub_server import TOKEN, Dataset, HubServer
from tests.data.streaming.streams import States, group_of, take, the_state
from tests.data.streaming.test_streaming_documents import arrow_bytes, epoch_of, lanes_of, lines

TEXTS = [f"text {number} " + "ä" * (number * 7 % 40) for number in range(240)]
Call = Callable[..., Any]


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    server = HubServer()
    yield server
    server.shutdown()
    server.server_close()


def fork_workers() -> None:
    """As in a run. (`set_start_method` itself would be pickled with a copy of the context that it sets.)"""
    multiprocessing.set_start_method("fork", force=True)


@pytest.fixture(scope="module")
def client(server: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProcessPoolExecutor]:
    """A process whose hub is the server."""
    environment = {
        "HF_ENDPOINT": server.endpoint,
        "HF_HOME": str(tmp_path_factory.mktemp("home")),
        "HF_HUB_OFFLINE": "0",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        "HF_TOKEN": TOKEN,
    }
    with (
        pytest.MonkeyPatch.context() as patch,
        ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), fork_workers) as pool,
    ):
        for name, value in environment.items():
            patch.setenv(name, value)
        pool.submit(int).result()
        patch.undo()
        yield pool


@pytest.fixture
def call(client: ProcessPoolExecutor, server: HubServer) -> Call:
    """Call a function of this module there; it raises here what it raises there."""
    server.datasets.clear()
    server.reset()
    return lambda function, *args: client.submit(function, *args).result()


def parquet(texts: list[str], rows: int) -> bytes:
    """A file of two columns with so many rows in a group; the first column is no text."""
    sink = pa.BufferOutputStream()
    other = [random.Random(text).randbytes(2000) for text in texts]
    pq.write_table(pa.table({"other": other, "text": texts}), sink, row_group_size=rows, write_statistics=False)
    return sink.getvalue().to_pybytes()


def web(**fields: Any) -> SourceConfig:
    return SourceConfig(**{"name": "web", "path": "me/web", "format": "hub", **fields})


FORMATS: dict[str, Callable[[list[str]], bytes]] = {
    ".parquet": lambda texts: parquet(texts, 7),
    ".jsonl": lines,
    ".json": lines,
    ".json.gz": lambda texts: gzip.compress(lines(texts)),
    ".jsonl.zst": lambda texts: COMPRESS[".zst"](lines(texts)),
    ".arrow": lambda texts: arrow_bytes(texts, stream=True),
    ".txt": lambda texts: "\n".join(texts).encode(),
}


def lanes_and_rest(lanes: int) -> tuple[list[list[Document]], bool]:
    """The documents of every lane in an epoch, and whether going on in the middle of each gives the same rest."""
    documents, is_same = [], True
    for lane in lanes_of(web(), lanes):
        found = epoch_of(lane)
        rest = found[len(found) // 2 :]
        is_same &= list(islice(lane.read(rest[0][0]), len(rest))) == rest
        documents.append([document for _, document, _ in found])
    return documents, is_same


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("files", [2, 12])
def test_every_document_is_on_one_lane(call: Call, server: HubServer, ending: str, files: int) -> None:
    """Whether files are divided or dealt whole. Ids are the file in the dataset, and the row or line there."""
    dataset = server.datasets["me/web"] = Dataset()
    names = [f"data/train-{number:02}{ending}" for number in range(files)]
    dataset.commit({name: FORMATS[ending](TEXTS[number::files]) for number, name in enumerate(names)})
    documents, is_same = call(lanes_and_rest, 3)
    found = [document for of_lane in documents for document in of_lane]
    assert sorted(document.text.strip() for document in found) == sorted(text.strip() for text in TEXTS)
    assert len({document.id for document in found}) == len(TEXTS)
    assert is_same
    if ending in (".parquet", ".arrow") or files == 12:
        assert {document.id for document in found} == {
            f"me/web/{name}:{row}"
            for number, name in enumerate(names)
            for row in range(1, len(TEXTS[number::files]) + 1)
        }


def samples(state: States | None, ranks: int, num_workers: int, steps: int) -> tuple[list[Any], States]:
    """So many samples in the order of the run, from ``state`` on, and the state after them."""
    config = DataConfig(
        sources=[web()],
        streaming=StreamingConfig(lanes=2, buffer_samples=4),
        validation_fraction=0.0,
        sequence_length=32,
        num_workers=num_workers,
    )
    config.validate()
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=400), [make_text(number) for number in range(50)], 10)
    group = group_of(config, tokenizer, ranks, 4 // ranks, state)
    return take(group, steps), the_state(group)


def test_samples_on_any_ranks_and_workers(call: Call, server: HubServer) -> None:
    dataset = server.datasets["me/web"] = Dataset()
    dataset.commit({"train.parquet": parquet([make_text(number) for number in range(60)], 5)})
    expected, _ = call(samples, None, 1, 0, 30)
    assert call(samples, None, 2, 0, 30)[0] == expected
    assert call(samples, None, 1, 2, 30)[0] == expected
    head, state = call(samples, None, 2, 2, 11)
    tail, _ = call(samples, state, 1, 0, 19)
    assert head + tail == expected


def test_a_moved_branch(call: Call, server: HubServer) -> None:
    """A commit stays what it is, and a checkpoint of another is refused in one line that names both."""
    dataset = server.datasets["me/web"] = Dataset()
    texts = [make_text(number) for number in range(60)]
    first = dataset.commit({"train.jsonl": lines(texts)})
    _, state = call(samples, None, 1, 0, 3)
    second = dataset.commit({"train.jsonl": lines(texts[::-1])})
    with pytest.raises(DataError, match=rf"commits of the datasets on the hub = .*{first}.* this run has .*{second}"):
        call(samples, state, 1, 0, 3)
    assert call(first_document, {"revision": first}) == texts[0]
    assert call(first_document, {}) == texts[-1]
    dataset.branches["v2"] = first
    assert call(first_document, {"revision": "v2"}) == texts[0]


def first_document(fields: dict[str, Any]) -> str:
    (lane,) = lanes_of(web(**fields), 1)
    return next(lane.read(Cursor()))[1].text


class OneRank:
    """The part of `Ranks` that agrees on something, without any other rank."""

    is_main = True

    def agreement(self) -> Any:
        return nullcontext()

    def broadcast(self, value: Any) -> Any:
        return value


def pinned(file: Path, resuming: bool, **fields: Any) -> tuple[str | None, str]:
    """What a run makes of the revision, in its sources and in the recipe that it writes."""
    source = web(**fields)
    data = DataConfig(sources=[source, SourceConfig("local", "a.txt")], streaming=StreamingConfig())
    resolved = {"data": {"sources": [{"revision": None}, {"revision": None}]}}
    pin_commits(data, resolved, file, OneRank(), resuming=resuming)  # type: ignore[arg-type]
    assert data.sources[1].revision is None
    return source.revision, str(resolved["data"]["sources"][0]["revision"])


def pins(file: Path) -> list[tuple[str | None, str]]:
    return [pinned(file, True), pinned(file, True, revision="v2"), pinned(file, False)]


def test_a_run_keeps_its_commit(call: Call, server: HubServer, tmp_path: Path) -> None:
    dataset, file = Dataset(), tmp_path / "hub_commits.json"
    server.datasets["me/web"] = dataset
    first = dataset.commit({"train.jsonl": lines(TEXTS)})
    assert call(pinned, file, False) == (first, first)
    second = dataset.commit({"train.jsonl": lines(TEXTS[1:])})
    third = dataset.commit({"train.jsonl": lines(TEXTS[2:])}, "v2")
    assert call(pins, file) == [(first, first), (third, third), (second, second)]


def late_in_an_epoch(count: int) -> tuple[Cursor, list[Document]]:
    """A place after nine tenths of all documents, and what comes next; they are all read, and the next epoch is not."""
    (lane,) = lanes_of(web(), 1)
    found = list(islice(lane.read(Cursor()), count))
    index = len(found) * 9 // 10
    return found[index][0], [document for _, document, _ in found[index : index + 5]]


def documents_from(cursor: Cursor) -> list[Document]:
    (lane,) = lanes_of(web(), 1)
    return [document for _, document, _ in islice(lane.read(cursor), 5)]


@pytest.mark.parametrize("ending", [".parquet", ".jsonl", ".txt"])
def test_nothing_before_a_place_is_read(call: Call, server: HubServer, ending: str) -> None:
    """Nor in advance: what the server sent is counted. Files of lines are several times what is read ahead."""
    count, size = (1000, 1000) if ending == ".parquet" else (2000, 4000)
    texts = [f"{number} " + random.Random(number).randbytes(size).hex() for number in range(count)]
    content = parquet(texts, 20) if ending == ".parquet" else FORMATS[ending](texts)
    server.datasets["me/web"] = Dataset()
    server.datasets["me/web"].commit({f"train{ending}": content})
    call(find_files, web(), True)
    assert server.served[f"train{ending}"] == 0
    cursor, expected = call(late_in_an_epoch, count)
    of_all = server.served[f"train{ending}"]
    server.reset()
    assert call(documents_from, cursor) == expected
    assert server.served[f"train{ending}"] < of_all / 5
    if ending == ".parquet":
        assert of_all < 0.6 * len(content)  # one column of two


def error_of(fields: dict[str, Any]) -> str:
    with pytest.raises(DataError) as error:
        find_files(web(**fields), streamed=True)
    assert "\n" not in str(error.value)
    return str(error.value)


CARD = b"---\nconfigs:\n- {config_name: de, data_files: a.json, field: rows}\n---\n"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"path": "me/nothing"}, 'source "web": path me/nothing cannot be found on the hub: 404 Client Error'),
        ({"revision": "v9"}, "path me/web at revision v9 cannot be found on the hub: 404 .* Revision Not Found"),
        ({"split": "dev"}, "split is dev, and me/web has train, test to stream"),
        ({"subset": "fr"}, "path me/web cannot be listed on the hub: BuilderConfig 'fr' not found"),
        ({"path": "me/csv"}, "a.csv cannot be read over the network, .*: leave data.streaming out"),
        ({"path": "me/card", "subset": "de"}, "the card of me/card sets field to 'rows': leave data.streaming out"),
        ({"path": "me/empty"}, "path me/empty cannot be listed on the hub: .*any data files"),
    ],
)
def test_what_cannot_be_streamed(call: Call, server: HubServer, fields: dict[str, str], message: str) -> None:
    server.datasets |= {name: Dataset() for name in ("me/web", "me/csv", "me/card", "me/empty")}
    server.datasets["me/web"].commit({"train.jsonl": lines(TEXTS), "test.jsonl": lines(TEXTS)})
    server.datasets["me/csv"].commit({"a.csv": b"text\na\n"})
    server.datasets["me/card"].commit({"a.json": b'{"rows": [{"text": "a"}]}', "README.md": CARD})
    server.datasets["me/empty"].commit({"README.md": b"nothing"})
    found = call(error_of, fields)
    assert re.search(message, found), found


def reading_error(retries: int, on_bad_file: str = "stop") -> str:
    """What reading an epoch ends with."""
    files = lanes_of(web(), 1, on_bad_file)
    before, hub_file.RETRIES = hub_file.RETRIES, retries
    try:
        with pytest.raises(DataError) as error:
            epoch_of(files[0])
    finally:
        hub_file.RETRIES = before
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_hub_that_fails(call: Call, server: HubServer) -> None:
    """For a while, which only takes time, or for good, which ends the run, also where bad files are skipped."""
    server.datasets["me/web"] = Dataset()
    commit = server.datasets["me/web"].commit({"train.parquet": parquet(TEXTS, 50)})
    expected = call(lanes_and_rest, 1)
    server.failures += [503, "cut"]
    assert call(lanes_and_rest, 1) == expected
    assert server.failures == []
    where = f'source "web": hf://datasets/me/web@{commit}/train.parquet cannot be read from the hub: '
    for failure, retries, reason in ((503, 1, "503 Service Unavailable"), ("cut", 1, "peer closed"), (404, 8, "404")):
        server.reset()
        server.always = failure
        message = call(reading_error, retries, "skip")
        assert message.startswith(where)
        assert reason in message
        assert server.requests["train.parquet"] == (1 if failure == 404 else 2)


def test_a_private_dataset(call: Call, server: HubServer) -> None:
    """It is read with the user's token, which is in no message."""
    server.datasets["me/web"] = Dataset(private=True)
    server.datasets["me/web"].commit({"train.jsonl": lines(TEXTS)})
    assert call(first_document, {}) == TEXTS[0]
    server.always = 403
    message = call(reading_error, 0)
    assert "403 Forbidden" in message
    assert TOKEN not in message


def prepare(folder: Path) -> None:
    """The tokenizer from the beginning of the text, and the validation samples; both from the hub."""
    config = DataConfig(
        sources=[web()],
        validation_sources=[web(name="dev", split="validation")],
        streaming=StreamingConfig(lanes=2, tokenizer_megabytes=0.05),
        sequence_length=32,
        tokenizer=TokenizerConfig(vocab_size=400),
    )
    prepare_corpus(config, folder)


def test_what_is_read_before_the_run(call: Call, server: HubServer, tmp_path: Path) -> None:
    """The validation split, and so much of the others as the tokenizer is trained on."""
    train = [parquet([make_text(number) for number in range(part, 2000, 4)], 100) for part in range(4)]
    files = {f"data/train-{part}.parquet": content for part, content in enumerate(train)}
    files["data/validation-0.parquet"] = parquet([make_text(number) for number in range(100)], 10)
    server.datasets["me/web"] = Dataset()
    server.datasets["me/web"].commit(files)
    call(prepare, tmp_path / "corpus")
    assert open_corpus(tmp_path / "corpus").report.validation["dev"].documents == 100
    assert 0 < server.served["data/train-0.parquet"] < len(train[0])
    assert not any(server.served[f"data/train-{part}.parquet"] for part in (1, 2, 3))
    before = server.served.copy()
    call(prepare, tmp_path / "corpus")
    assert {name: size for name, size in server.served.items() if name != "README.md"} == {
        name: size for name, size in before.items() if name != "README.md"
    }
