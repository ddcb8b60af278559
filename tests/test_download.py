"""Downloads are complete and verified or refused, and interrupted transfers are resumed."""

import contextlib
import dataclasses
import hashlib
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from pixelcnn import params
from pixelcnn.data import download, sources
from pixelcnn.data.config import Dataset, Download
from pixelcnn.data.sources import Archive, Source
from pixelcnn.stages import download as stage
from tests.conftest import DEMO

FILE = "cifar-10-python.tar.gz"
CONTENT = hashlib.shake_256(b"an archive").digest(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Site:
    """A web server on the loopback interface with configurable failures."""

    def __init__(self) -> None:
        self.files = {FILE: CONTENT}
        self.breaks: list[int] = []  # bytes after which the next answers break off
        self.statuses: list[int] = []  # of the next answers, instead of content
        self.ranges: list[str | None] = []  # what was asked for, request by request
        self.serves_ranges = self.says_length = self.says_etag = True
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/files"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.ranges.append(request.headers["Range"])
        content = self.files.get(request.path.removeprefix("/files/"))
        if self.statuses or content is None:
            request.send_error(self.statuses.pop(0) if self.statuses else 404)
            return
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        start = 0
        if self.serves_ranges and request.headers["Range"] and request.headers["If-Range"] == etag:
            start = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        if start == len(content):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(content)}")
            request.end_headers()
            return
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.says_etag:
            request.send_header("ETag", etag)
        if self.says_length:
            request.send_header("Content-Length", str(len(content) - start))
        request.end_headers()
        rest = content[start:]
        with contextlib.suppress(ConnectionError):  # the client may have closed the connection
            request.wfile.write(rest[: self.breaks.pop(0)] if self.breaks else rest)


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    site = Site()
    archive = Archive(FILE, f"{site.url}/{FILE}", SHA256, len(CONTENT))
    load = sources.load

    def patched(name: str) -> Source:
        archives = dict.fromkeys(("train", "test"), ((archive,),))
        known = {"archives": archives, "hint": "Look elsewhere."} if name == "cifar10" else {}
        return dataclasses.replace(load(name), **known)  # type: ignore[arg-type]

    monkeypatch.setattr(sources, "load", patched)
    monkeypatch.setattr(download, "FIRST_PAUSE", 0.001)
    monkeypatch.setenv("NO_PROXY", "*")
    thread = threading.Thread(target=site.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    site.server.shutdown()
    site.server.server_close()
    thread.join()


def settings(origin: str = "publisher", verify: str = "publisher", source: str = "cifar10") -> Download:
    return Download.model_validate({"source": source, "origin": origin, "verify": verify})


def get(folder: Path, **changed: str) -> Path:
    download.download(settings(**changed), folder / "out", folder / "partial")
    return folder / "out"


def test_the_output_is_the_publishers_file_and_a_manifest(site: Site, tmp_path: Path) -> None:
    out = get(tmp_path)
    assert sorted(path.name for path in out.iterdir()) == [FILE, "manifest.json"]
    assert (out / FILE).read_bytes() == CONTENT
    entry = {"sha256": SHA256, "num_bytes": len(CONTENT), "verified": "publisher"}
    assert json.loads((out / "manifest.json").read_text()) == {FILE: entry}
    assert site.ranges == [None]  # once, though two splits are in it
    assert not (tmp_path / "partial").exists()


def test_a_url_and_a_local_folder_as_origin_give_the_same_bytes(site: Site, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / FILE).write_bytes(CONTENT)
    first, second = get(tmp_path / "a", origin=site.url + "/"), get(tmp_path / "b", origin=str(tmp_path / "here"))
    for file in (FILE, "manifest.json"):
        assert (first / file).read_bytes() == (second / file).read_bytes()


def test_a_broken_transfer_is_resumed_where_it_broke(site: Site, tmp_path: Path) -> None:
    site.breaks = [1_000_000, 700_001]
    assert (get(tmp_path) / FILE).read_bytes() == CONTENT
    assert site.ranges == [None, "bytes=1000000-", "bytes=1700001-"]


def test_the_next_run_resumes_an_interrupted_download(site: Site, tmp_path: Path) -> None:
    site.breaks, site.statuses = [1_234_567], []
    original = site.answer

    def breaks_down_after_one(request: BaseHTTPRequestHandler) -> None:
        site.statuses = [503] if site.ranges else []
        original(request)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(site, "answer", breaks_down_after_one)
        with pytest.raises(ValueError, match=r"gave up after 5 tries .* 503 .* 1,234,567 bytes are in .*\.part"):
            get(tmp_path)
    assert not any((tmp_path / "out").iterdir())
    shutil.rmtree(tmp_path / "out")  # as DVC does
    site.ranges, site.statuses = [], []
    assert (get(tmp_path) / FILE).read_bytes() == CONTENT
    assert site.ranges == ["bytes=1234567-"]


def test_a_complete_partial_file_is_not_downloaded_again(site: Site, tmp_path: Path) -> None:
    download.fetch(f"{site.url}/{FILE}", tmp_path / "a.part", "")
    assert download.fetch(f"{site.url}/{FILE}", tmp_path / "a.part", "") == SHA256
    assert site.ranges == [None, f"bytes={len(CONTENT)}-"]
    assert (tmp_path / "a.part").read_bytes() == CONTENT


@pytest.mark.parametrize("trait", ["serves_ranges", "says_etag"])
def test_a_download_restarts_where_the_server_cannot_resume(site: Site, trait: str, tmp_path: Path) -> None:
    setattr(site, trait, False)
    site.breaks = [1_000_000]
    assert (get(tmp_path) / FILE).read_bytes() == CONTENT
    assert len(site.ranges) == 2


def test_a_partial_file_is_never_continued_with_another_file(site: Site, tmp_path: Path) -> None:
    part = tmp_path / "a.part"
    site.breaks = [1_000_000]
    with pytest.raises(download.TRANSIENT):
        download._transfer(f"{site.url}/{FILE}", part, "")
    site.files = {FILE: CONTENT[::-1], "other": CONTENT[1:]}
    download.fetch(f"{site.url}/{FILE}", part, "")
    assert part.read_bytes() == CONTENT[::-1]  # the file changed: If-Range
    part.write_bytes(CONTENT[:1000])
    download.fetch(f"{site.url}/other", part, "")
    assert part.read_bytes() == CONTENT[1:]  # the address changed
    assert site.ranges[-1] is None


def test_transient_server_errors_are_retried(site: Site, tmp_path: Path) -> None:
    site.statuses = [503, 429, 500]
    assert (get(tmp_path) / FILE).read_bytes() == CONTENT


def test_tries_that_transfer_something_do_not_count_towards_the_limit(site: Site, tmp_path: Path) -> None:
    site.breaks = [1000] * (3 * download.TRIES)
    assert (get(tmp_path) / FILE).read_bytes() == CONTENT


def test_a_missing_file_is_reported_at_once_with_the_hint(site: Site, tmp_path: Path) -> None:
    site.files = {}
    with pytest.raises(ValueError, match=rf"{site.url}/{FILE}: the server answered 404 Not Found\. Look elsewhere\."):
        get(tmp_path)
    assert len(site.ranges) == 1


def test_an_address_without_a_server_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "FIRST_PAUSE", 0.001)
    monkeypatch.setenv("NO_PROXY", "*")
    with pytest.raises(ValueError, match=r"http://127\.0\.0\.1:9/.*: gave up after 5 tries that transferred nothing"):
        get(tmp_path, origin="http://127.0.0.1:9")


def test_a_file_of_unknown_length_is_refused(site: Site, tmp_path: Path) -> None:
    site.says_length = False
    with pytest.raises(ValueError, match="does not say how long the file is"):
        get(tmp_path)


@pytest.mark.parametrize("where", ["web", "folder"])
def test_a_wrong_checksum_is_refused_and_the_next_run_starts_from_zero(site: Site, where: str, tmp_path: Path) -> None:
    wrong = b"\0" + CONTENT[1:]
    site.files = {FILE: wrong}
    (tmp_path / FILE).write_bytes(wrong)
    origin = "publisher" if where == "web" else str(tmp_path)
    found = hashlib.sha256(wrong).hexdigest()
    message = rf"{FILE} from .*: sha256 {found}, expected the publisher's {SHA256}; .* `verify: any` accepts it"
    with pytest.raises(ValueError, match=message):
        get(tmp_path, origin=origin)
    assert not any((tmp_path / "out").iterdir())
    site.files, site.ranges = {FILE: CONTENT}, []
    assert (get(tmp_path) / FILE).read_bytes() == CONTENT
    assert site.ranges == [None]


def test_verify_any_accepts_another_checksum(site: Site, tmp_path: Path) -> None:
    site.files = {FILE: b"something else"}
    manifest = json.loads((get(tmp_path, verify="any") / "manifest.json").read_text())
    sha256 = hashlib.sha256(b"something else").hexdigest()
    assert manifest[FILE] == {"sha256": sha256, "num_bytes": 14, "verified": "any"}


@pytest.mark.usefixtures("site")
def test_a_full_disk_is_detected_before_the_transfer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2_999_999))
    (tmp_path / FILE).write_bytes(CONTENT)
    for origin in ("publisher", str(tmp_path)):
        with pytest.raises(ValueError, match=r"no disk space: 3,000,000 bytes to come, 2,999,999 free"):
            get(tmp_path, origin=origin)
    assert not list((tmp_path / "partial").glob("*.part"))


def test_a_folder_without_the_file_is_refused_with_the_names_looked_for(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"{tmp_path}: lacks the train archives of CIFAR-10: looked for {FILE}"):
        get(tmp_path, origin=str(tmp_path))


@pytest.mark.parametrize("end", [".zip", "_npz.zip"])
def test_a_folder_may_hold_either_format_of_imagenet(end: str, tmp_path: Path) -> None:
    names = [f"Imagenet32_train{end}", f"Imagenet32_val{end}"]
    for name in names:
        (tmp_path / name).write_bytes(b"a zip")
    out = get(tmp_path, source="imagenet32_box2017", origin=str(tmp_path), verify="any")
    assert sorted(path.name for path in out.iterdir()) == [*names, "manifest.json"]


def test_digits_need_no_archive(tmp_path: Path) -> None:
    out = get(tmp_path, source="digits")
    assert [path.name for path in out.iterdir()] == ["manifest.json"]
    assert json.loads((out / "manifest.json").read_text()) == {}


def test_the_stage_refuses_a_name_that_is_not_in_params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(DEMO, tmp_path / "params.yaml")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["download", "nothing", "--out", "data/raw/nothing"])
    with pytest.raises(ValueError, match=r"params\.yaml: datasets: 'nothing' is not one of .*digits"):
        stage.main()


def test_the_stage_stores_partial_files_outside_its_outs(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed = params.load(DEMO).model_copy(update={"datasets": {"mine": Dataset.model_construct(download=settings())}})
    monkeypatch.setattr(stage, "read_params", lambda: changed)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["download", "mine", "--out", "data/raw/mine"])
    site.breaks, site.serves_ranges = [1000] * 20, False
    with pytest.raises(ValueError, match="gave up"):
        stage.main()
    assert (tmp_path / "data/partial/mine" / f"{FILE}.part").stat().st_size == 1000
    site.breaks = []
    stage.main()
    assert (tmp_path / "data/raw/mine" / FILE).read_bytes() == CONTENT


def test_published_checksums_are_well_formed() -> None:
    loaded = [sources.load(name) for name in sources.NAMES]
    archives = [a for source in loaded for ways in source.archives.values() for way in ways for a in way]
    for archive in archives:
        assert archive.url.endswith("/" + archive.file)
        assert archive.sha256 is None or len(bytes.fromhex(archive.sha256)) == 32
