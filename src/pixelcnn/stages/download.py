"""The stage download@NAME: the publisher's archives in one folder, each of them whole, with a manifest.

A transfer goes to PARTIAL/FILE.part. That folder lies beside the stage's outs and not in them, because DVC deletes the
outs before it runs a stage; so the next run goes on where a broken one stopped. When all files are whole they move to
the out folder, the manifest last. Beside a part lies what the server said of the file, so that a part is only ever
continued with the rest of the same file (If-Range, RFC 9110 section 13.1.5).
"""

import argparse
import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import requests
import urllib3

from pixelcnn import config
from pixelcnn.data.sources import SOURCES, Archive, Source
from pixelcnn.progress import progress
from pixelcnn.stages import run

CHUNK = 2**18  # bytes at most at a time
TIMEOUT = (10, 60)  # seconds to connect, and between two chunks
TRIES = 5  # in a row that bring no byte
FIRST_PAUSE = 1.0  # seconds before the second try; each further one waits twice as long


class BrokenTransfer(Exception):
    """A transfer ended early; another try may go on from there."""


PASSING = (BrokenTransfer, requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)


def main() -> None:
    """Fetch the archives of one entry of params.yaml's `datasets`."""
    parser = argparse.ArgumentParser(description="The publisher's archives of one data set, verified")
    parser.add_argument("name", help="an entry of `datasets` in params.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder for the archives and their manifest")
    arguments = parser.parse_args()
    datasets = config.load(Path("params.yaml")).datasets
    if arguments.name not in datasets:
        raise ValueError(f"params.yaml: datasets: {arguments.name!r} is not one of {', '.join(datasets)}")
    out = arguments.out.resolve()
    download(datasets[arguments.name].download, out, partial=out.parent.parent / "partial" / out.name)


def download(settings: config.Download, out: Path, partial: Path) -> None:
    """Bring the source's archives to `out` and write `out`/manifest.json: {file: {sha256, num_bytes, verified}}.

    `partial` keeps what a broken transfer brought. Raises ValueError for a file that is not to be had, that differs
    from the publisher's (unless `verify` is "any"), or that finds no space on the disk.
    """
    source = SOURCES[settings.source]
    for folder in (out, partial):
        folder.mkdir(parents=True, exist_ok=True)
    manifest = {archive.file: _obtain(archive, source, settings, partial) for archive in _wanted(source, settings)}
    for file in manifest:
        _part(partial, file).replace(out / file)
    temporary = out / "manifest.json.tmp"
    temporary.write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(out / "manifest.json")
    shutil.rmtree(partial)


def _wanted(source: Source, settings: config.Download) -> list[Archive]:
    """The archives of all splits, each once; a folder may hold any of a split's alternatives."""
    if _is_url(settings.origin):
        chosen = [archive for alternatives in source.archives.values() for archive in alternatives[0]]
    else:
        chosen = [a for split in source.archives for a in source.files_in(Path(settings.origin), split)]
    return list({archive.file: archive for archive in chosen}.values())


def _is_url(origin: str) -> bool:
    return origin == "publisher" or origin.startswith(("http://", "https://"))


def _part(partial: Path, file: str) -> Path:
    return partial / f"{file}.part"


def _obtain(archive: Archive, source: Source, settings: config.Download, partial: Path) -> dict[str, Any]:
    """Bring one archive to its part, whole and verified; its entry of the manifest."""
    part = _part(partial, archive.file)
    if settings.origin == "publisher":
        found = fetch(archive.url, part, source.hint)
    elif _is_url(settings.origin):
        found = fetch(f"{settings.origin.rstrip('/')}/{archive.file}", part, source.hint)
    else:
        found = copy(Path(settings.origin) / archive.file, part)
    if settings.verify == "publisher" and archive.sha256 not in (None, found):
        part.unlink()
        raise ValueError(
            f"{archive.file} from {settings.origin}: sha256 {found}, expected the publisher's {archive.sha256}; it was "
            "not kept. `verify: any` accepts it, and the report marks the data set unless its images are the published "
            "ones"
        )
    return {
        "sha256": found,
        "num_bytes": part.stat().st_size,
        "verified": "publisher" if found == archive.sha256 else "any",
    }


def copy(path: Path, part: Path) -> str:
    """Copy a local file to `part`; its sha256."""
    size = path.stat().st_size
    part.unlink(missing_ok=True)
    _check_space(part, size)
    with path.open("rb") as file:
        return _append(iter(lambda: file.read(CHUNK), b""), part, 0, size)


def fetch(url: str, part: Path, hint: str) -> str:
    """Bring what `url` serves to `part`, going on from what is there; its sha256.

    A broken transfer is tried again until TRIES in a row bring nothing. Raises ValueError then, and at once for an
    answer that trying does not change (404), with `hint`: where else the file may be had.
    """
    furthest, failures = _size(part), 0
    while True:
        try:
            return _transfer(url, part, hint)
        except PASSING as error:
            failures = 1 if _size(part) > furthest else failures + 1
            furthest = max(furthest, _size(part))
            if failures == TRIES:
                raise ValueError(
                    f"{url}: gave up after {TRIES} tries that brought nothing: {error}; {furthest:,} bytes are kept in "
                    f"{part}, and the next run goes on from there"
                ) from None
            time.sleep(FIRST_PAUSE * 2 ** (failures - 1))


def _transfer(url: str, part: Path, hint: str) -> str:
    """One request: the rest of the part if the server still has that very file, else the whole."""
    headers = {"Accept-Encoding": "identity"} | _range(url, part)
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416 and _content_range(response)[1] == _size(part):
            return _append([], part, _size(part), _size(part))  # nothing is left to fetch
        _check_status(url, response, part, hint)
        start = _content_range(response)[0] if response.status_code == 206 else 0
        if start != (_size(part) if response.status_code == 206 else 0):
            raise BrokenTransfer(f"the server answered with bytes from {start}, not from {_size(part)}")
        length = _length(url, response)
        _remember(url, response, part)
        _check_space(part, length)
        return _append(_content(response), part, start, start + length)


def _content(response: requests.Response) -> Iterator[bytes]:
    """What arrives, as it arrives, so that a break loses none of it.

    Not decoded: some servers call the compression of a .tar.gz an encoding of the transfer.
    """
    return iter(lambda: response.raw.read1(CHUNK, decode_content=False), b"")


def _range(url: str, part: Path) -> dict[str, str]:
    """The headers that ask for the rest of `part`; none if it does not surely begin the file that `url` serves."""
    try:
        known = json.loads(_memory(part).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    if not _size(part) or known["url"] != url or not known["validator"]:
        return {}
    return {"Range": f"bytes={_size(part)}-", "If-Range": known["validator"]}


def _remember(url: str, response: requests.Response, part: Path) -> None:
    """Note which file the bytes of `part` belong to."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
    if response.status_code == 200:
        part.unlink(missing_ok=True)  # bytes of another file, perhaps
    _memory(part).write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")


def _memory(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _content_range(response: requests.Response) -> tuple[int, int]:
    """First byte and total of a Content-Range such as "bytes 100-199/200" or "bytes */200"; -1 for what is not said."""
    span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    first = span.partition("-")[0]
    return int(first) if first.isdigit() else -1, int(total) if total.isdigit() else -1


def _check_status(url: str, response: requests.Response, part: Path, hint: str) -> None:
    """Pass 200 and 206; a passing trouble is a BrokenTransfer, any other a ValueError."""
    status = response.status_code
    if status in (200, 206):
        return
    if status == 416:
        part.unlink(missing_ok=True)
    if status in (408, 416, 429) or status >= 500:
        raise BrokenTransfer(f"the server answered {status} {response.reason}")
    raise ValueError(f"{url}: the server answered {status} {response.reason}. {hint}".rstrip())


def _length(url: str, response: requests.Response) -> int:
    length = response.headers.get("Content-Length", "")
    if not length.isdigit():
        raise ValueError(
            f"{url}: the server does not say how long the file is, so a broken transfer would look whole; fetch it by "
            "other means and set `origin` to the folder that holds it"
        )
    return int(length)


def _check_space(part: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < num_bytes:
        raise ValueError(f"{part}: no disk space: {num_bytes:,} bytes to come, {free:,} free")


def _append(chunks: Iterable[bytes], part: Path, start: int, total: int) -> str:
    """Append `chunks` to the `start` bytes of `part`, which then holds `total`; the sha256 of all of them."""
    with part.open("ab+") as file, progress(part.stem, total, "B") as bar:
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256")
        bar.update(start)
        for chunk in chunks:
            file.write(chunk)
            digest.update(chunk)
            bar.update(len(chunk))
    if _size(part) != total:
        raise BrokenTransfer(f"{_size(part):,} of {total:,} bytes came")
    return digest.hexdigest()


if __name__ == "__main__":
    run(main)
