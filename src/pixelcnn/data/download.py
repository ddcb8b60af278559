"""Download a source's archives into one folder, verified against the published checksums, with a manifest.

A transfer goes to PARTIAL/FILE.part, and when all files are complete they move to the output folder, the manifest last.
An interrupted transfer is resumed, in the same run or a later one. Beside each partial file lies the validator that the
server sent (ETag or Last-Modified), so that it is only ever continued with the rest of the same file (If-Range, RFC
9110 section 13.1.5).
"""

import hashlib
import json
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import requests
import urllib3

from pixelcnn.data import sources
from pixelcnn.data.config import Download, is_url
from pixelcnn.data.sources import Archive, Source
from pixelcnn.files import checksum_of, write_text
from pixelcnn.progress import progress

CHUNK = 2**18  # bytes at most per read
TIMEOUT = (10, 60)  # seconds to connect, and between two chunks
TRIES = 5  # consecutive ones that transfer no byte, before giving up
FIRST_PAUSE = 1.0  # seconds before the second try; doubled before each further one


class BrokenTransfer(Exception):
    """A transfer ended early; another try may resume it."""


TRANSIENT = (BrokenTransfer, requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)


def download(settings: Download, out: Path, partial: Path) -> None:
    """Download the source's archives to `out` and write `out`/manifest.json: {file: {sha256, num_bytes, verified}}.

    `partial` holds interrupted transfers between runs. Raises ValueError for a file that cannot be had, that differs
    from the publisher's (unless `verify` is "any"), or for which the disk has no space.
    """
    source = sources.load(settings.source)
    for folder in (out, partial):
        folder.mkdir(parents=True, exist_ok=True)
    manifest = {archive.file: _obtain(archive, source, settings, partial) for archive in _wanted(source, settings)}
    for file in manifest:
        _part(partial, file).replace(out / file)
    write_text(out / "manifest.json", json.dumps(manifest, indent=2, sort_keys=True) + "\n")
    shutil.rmtree(partial)


def _wanted(source: Source, settings: Download) -> list[Archive]:
    """The archives of all splits, each once; a local folder may hold any of a split's alternatives."""
    if is_url(settings.origin):
        chosen = [archive for alternatives in source.archives.values() for archive in alternatives[0]]
    else:
        chosen = [a for split in source.archives for a in source.files_in(Path(settings.origin), split)]
    return list({archive.file: archive for archive in chosen}.values())


def _part(partial: Path, file: str) -> Path:
    return partial / f"{file}.part"


def _obtain(archive: Archive, source: Source, settings: Download, partial: Path) -> dict[str, Any]:
    """Transfer one archive to its partial file, complete and verified; returns its entry of the manifest."""
    part = _part(partial, archive.file)
    if settings.origin == "publisher":
        found = fetch(archive.url, part, source.hint)
    elif is_url(settings.origin):
        found = fetch(f"{settings.origin.rstrip('/')}/{archive.file}", part, source.hint)
    else:
        found = copy(Path(settings.origin) / archive.file, part)
    algorithm, published = archive.checksum
    same = found if algorithm == "sha256" else checksum_of(part, algorithm)
    if settings.verify == "publisher" and published not in (None, same):
        part.unlink()
        raise ValueError(
            f"{archive.file} from {settings.origin}: {algorithm} {same}, expected the publisher's {published}; it was "
            "deleted. `verify: any` accepts it, and the report marks the data set unless its images are the published "
            "ones"
        )
    return {
        "sha256": found,
        "num_bytes": part.stat().st_size,
        "verified": "publisher" if same == published else "any",
    }


def copy(path: Path, part: Path) -> str:
    """Copy a local file to `part`; returns its SHA-256 in hex."""
    size = path.stat().st_size
    part.unlink(missing_ok=True)
    _check_space(part, size)
    with path.open("rb") as file:
        return _append(iter(lambda: file.read(CHUNK), b""), part, 0, size)


def fetch(url: str, part: Path, hint: str) -> str:
    """Download `url` to `part`, resuming what is there; returns the file's SHA-256 in hex.

    A broken transfer is retried with exponential backoff, until TRIES consecutive ones transfer nothing. Raises
    ValueError then, and at once for an answer that a retry does not change (404), with `hint`: where else the file may
    be had.
    """
    furthest, failures = _size(part), 0
    while True:
        try:
            return _transfer(url, part, hint)
        except TRANSIENT as error:
            failures = 1 if _size(part) > furthest else failures + 1
            furthest = max(furthest, _size(part))
            if failures == TRIES:
                raise ValueError(
                    f"{url}: gave up after {TRIES} tries that transferred nothing: {error}; {furthest:,} bytes are "
                    f"in {part}, and the next run resumes from there"
                ) from None
            time.sleep(FIRST_PAUSE * 2 ** (failures - 1))


def _transfer(url: str, part: Path, hint: str) -> str:
    """One request: for the rest of the partial file if the server still has that very file, else for the whole."""
    headers = {"Accept-Encoding": "identity"} | _range_headers(url, part)
    with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT) as response:
        if response.status_code == 416 and _content_range(response)[1] == _size(part):
            return _append([], part, _size(part), _size(part))  # the partial file is complete
        _check_status(url, response, part, hint)
        start = _content_range(response)[0] if response.status_code == 206 else 0
        if start != (_size(part) if response.status_code == 206 else 0):
            raise BrokenTransfer(f"the server answered with bytes from {start}, not from {_size(part)}")
        length = _length(url, response)
        _write_validator(url, response, part)
        _check_space(part, length)
        return _append(_content(response), part, start, start + length)


def _content(response: requests.Response) -> Iterator[bytes]:
    """The body in chunks as they arrive, so that an interruption loses none of it.

    Not decoded: some servers declare the compression of a .tar.gz as the encoding of the transfer.
    """
    return iter(lambda: response.raw.read1(CHUNK, decode_content=False), b"")


def _range_headers(url: str, part: Path) -> dict[str, str]:
    """The headers that request the rest of `part`; none if it may not be the beginning of the file at `url`."""
    try:
        known = json.loads(_validator_file(part).read_text(encoding="utf-8"))
    except (FileNotFoundError, json.JSONDecodeError):
        return {}
    if not _size(part) or known["url"] != url or not known["validator"]:
        return {}
    return {"Range": f"bytes={_size(part)}-", "If-Range": known["validator"]}


def _write_validator(url: str, response: requests.Response, part: Path) -> None:
    """Record which version of the file the bytes of `part` belong to."""
    etag = response.headers.get("ETag", "")
    validator = etag if etag and not etag.startswith("W/") else response.headers.get("Last-Modified", "")
    if response.status_code == 200:
        part.unlink(missing_ok=True)  # possibly bytes of another file
    _validator_file(part).write_text(json.dumps({"url": url, "validator": validator}), encoding="utf-8")


def _validator_file(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _content_range(response: requests.Response) -> tuple[int, int]:
    """First byte and total of a Content-Range such as "bytes 100-199/200" or "bytes */200"; -1 for what is missing."""
    span, _, total = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("/")
    first = span.partition("-")[0]
    return int(first) if first.isdigit() else -1, int(total) if total.isdigit() else -1


def _check_status(url: str, response: requests.Response, part: Path, hint: str) -> None:
    """Accept 200 and 206; raise BrokenTransfer for transient errors and ValueError for any other."""
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
            f"{url}: the server does not say how long the file is, so a broken transfer would look complete; fetch it "
            "by other means and set `origin` to the folder that holds it"
        )
    return int(length)


def _check_space(part: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if free < num_bytes:
        raise ValueError(f"{part}: no disk space: {num_bytes:,} bytes to come, {free:,} free")


def _append(chunks: Iterable[bytes], part: Path, start: int, total: int) -> str:
    """Append `chunks` to the `start` bytes of `part`, which then has `total`; returns the SHA-256 of all of them."""
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
