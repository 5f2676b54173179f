"""A registry as Source and Target of :mod:`..source`, with what else it can do: tags, delete."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

from ...errors import ContainersError, ImageError, NotFound, RegistryError, UsageError
from .. import descriptor, manifest, reference
from ..descriptor import Descriptor, Platform
from ..manifest import Index, Manifest
from ..reference import Reference
from ..source import Reader
from . import failures
from .credentials import Credentials
from .download import Download
from .endpoint import Endpoint
from .settings import Settings
from .transport import Answer, Broken, Origin, Transport, join
from .upload import Upload

T = TypeVar("T")
_ACCEPT = ", ".join(
    [descriptor.OCI_MANIFEST, descriptor.OCI_INDEX, descriptor.DOCKER_MANIFEST, descriptor.DOCKER_LIST, *sorted(descriptor.SCHEMA_1)]
)
_NESTED = 4  # an index may name indexes
_MIRROR_ATTEMPTS = 2
_PAGES, _PAGE = 1000, 4 << 20  # of a list of tags: how many, and bytes of one
_MOUNTS = 3  # repositories that are asked for a blob before it is sent
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}\Z")


class Registry:
    """One repository of one registry: ``Registry("debian:12")``. Many threads may use it. Cheap to make: nothing is asked yet.

    :param credentials: instead of what the user's files say.
    :param origins: names of images of which a blob is known to be a part; those of the same registry are asked for it when pushing.
    :param configs: media types of configs that are understood here (:func:`..manifest.parse`).
    """

    plain = False

    def __init__(
        self,
        name: Reference | str,
        settings: Settings | None = None,
        *,
        credentials: Credentials | None = None,
        origins: Callable[[Descriptor], Iterable[Reference]] | None = None,
        configs: Collection[str] = descriptor.CONFIGS,
    ) -> None:
        self.reference = reference.parse(name) if isinstance(name, str) else name
        self.settings = settings or Settings.load()
        self.resolved: Descriptor | None = None
        """After :meth:`resolve` or :meth:`manifest`: what the name means; of an index its own digest, which is what pins a name."""
        self.mounted: set[str] = set()
        """Digests that :meth:`has` took from other repositories of the registry."""
        host, path = self.reference.host, self.reference.path
        self._transports = [Transport(self.settings)]
        self._own = Endpoint(self._transports[0], host, path, known=credentials)
        self._mirrors = self._make_mirrors(host, path)
        self._origins, self._configs = origins, configs
        self._sessions: dict[str, str] = {}
        self._lock = threading.Lock()

    def _make_mirrors(self, host: str, path: str) -> list[Endpoint]:
        urls = self.settings.mirrors.get(host, ())
        if not urls:
            return []
        attempts = min(_MIRROR_ATTEMPTS, self.settings.limits.attempts)
        transport = Transport(replace(self.settings, limits=replace(self.settings.limits, attempts=attempts)))
        self._transports.append(transport)
        return [Endpoint(transport, host, path, url) for url in urls]

    @property
    def name(self) -> str:
        return self.reference.familiar

    def close(self) -> None:
        """Ends what other threads are doing with it, too: they get an error."""
        for transport in self._transports:
            transport.close()

    def __enter__(self) -> Registry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- Source

    def resolve(self) -> Descriptor:
        """What the name means now: asked by HEAD, which registries do not count as a pull.

        :raises NotFound: there is no such image. :raises RegistryError: the registry refuses or cannot be reached.
        """
        self.resolved = self._reading(self._head)
        return self.resolved

    def manifest(self, platform: Platform) -> Manifest:
        """The image for ``platform``. What is checked is what is used: a tag is turned into a digest first."""
        found = self._fetch(self.resolve() if not self.reference.digest else None)
        for _ in range(_NESTED):
            if isinstance(found, Manifest):
                return found
            try:
                chosen = found.choose(platform)
            except NotFound as error:
                raise NotFound(f"no image of {self.name} for {platform}", error.hint) from None
            found = self._fetch(chosen)
        raise ImageError(f"{self.name}: its indexes name each other {_NESTED} levels deep", "do not trust who made this image")

    def index(self) -> Manifest | Index:
        """What the name means, unchosen: an index where there are several platforms."""
        return self._fetch(self.resolve() if not self.reference.digest else None)

    def config(self, manifest: Manifest) -> bytes:
        """:raises ImageError: the bytes are not what the manifest says."""
        return self.blob(manifest.config)

    def blob(self, blob: Descriptor) -> bytes:
        """A small blob whole, verified. :raises ImageError: the bytes are not what the descriptor says."""
        reader = self.open(blob)
        try:
            data = reader.read()
        finally:
            reader.close()
        _verify(data, blob.digest, f"blob {blob.short} of {self.name}")
        return data

    def open(self, blob: Descriptor, offset: int = 0) -> Reader:
        return Download([*self._mirrors, self._own], blob, self._scope("pull"), self.name, offset)

    # -- Target

    def has(self, blob: Descriptor) -> bool:
        where = f"/v2/{self._own.repository}/blobs/{blob.digest}"
        answer = self._own.ask("HEAD", where, self._scope("pull,push"), f"blob {blob.short} of {self.name}", accept=(404, 405))
        answer.finish()
        return answer.status == 200 or any(self._mount(blob, path) for path in self._known_places(blob))

    def _known_places(self, blob: Descriptor) -> list[str]:
        found = self._origins(blob) if self._origins else ()
        paths = [one.path for one in found if one.host == self.reference.host and one.path != self.reference.path]
        return list(dict.fromkeys(paths))[:_MOUNTS]

    def _mount(self, blob: Descriptor, path: str) -> bool:
        """Whether the registry took it from another repository. If it opened an upload instead, that one is used."""
        where = f"/v2/{self._own.repository}/blobs/uploads/?mount={quote(blob.digest, safe='')}&from={quote(path, safe='')}"
        try:
            answer = self._own.ask("POST", where, f"{self._scope('pull,push')} repository:{path}:pull", f"{path} of {self.name}")
        except ContainersError:
            self._own.transport.check()
            return False  # it may not be read there: then it is sent
        answer.finish()
        if answer.status == 201:
            self.mounted.add(blob.digest)
        elif answer.status == 202:
            with self._lock:
                self._sessions[blob.digest] = self._own.follow(answer, answer.headers.get("Location") or "")
        return answer.status == 201

    def put(self, blob: Descriptor, open: Callable[[], Reader], sent: Callable[[int], None]) -> None:
        with self._lock:
            session = self._sessions.pop(blob.digest, "")
        Upload(self._own, blob, self._scope("pull,push"), open, sent, session).run()

    def finish(self, manifest: Manifest, names: Sequence[str] = ()) -> None:
        """:raises UsageError: one of ``names`` is of another repository."""
        places = [self._place(name) for name in names] or [self.reference.tag or manifest.digest]
        for place in dict.fromkeys(places):
            where = f"/v2/{self._own.repository}/manifests/{place}"
            answer = self._own.ask(
                "PUT",
                where,
                self._scope("pull,push"),
                f"manifest {place} of {self.name}",
                headers={"Content-Type": manifest.media_type},
                body=lambda: manifest.raw,
                size=len(manifest.raw),
                timeout=self.settings.limits.commit,
            )
            answer.finish()
            if answer.status not in (200, 201, 202):
                raise RegistryError(f"{self.name}: unexpected answer {answer.status} to its manifest")
            said = answer.headers.get("Docker-Content-Digest") or manifest.digest
            if said != manifest.digest:
                raise RegistryError(f"{self.name}: the registry stored its manifest as {said:.80}, not {manifest.digest}")

    def _place(self, name: str) -> str:
        found = reference.parse(name)
        if (found.host, found.path) != (self.reference.host, self.reference.path):
            raise UsageError(f"{name} is not in {self.reference.host}/{self.reference.path}", "push each repository by itself")
        return found.tag

    # -- beside

    def tags(self) -> list[str]:
        """All tags of the repository, in the registry's order. :raises NotFound: there is no such repository."""
        own = self._own
        url, found, asked = f"/v2/{own.repository}/tags/list?n=1000", dict[str, None](), set[str]()
        what = f"{self.reference.host}/{self.reference.path}"
        while url:
            if url in asked or len(asked) >= _PAGES:
                raise RegistryError(f"{what}: the list of its tags does not end", f"{len(found)} tags in {len(asked)} pages")
            asked.add(url)
            answer, body = own.get(url, self._scope("pull"), what, _PAGE)
            found |= dict.fromkeys(_tags(body, what))
            url = _next_page(answer)
        return list(found)

    def delete(self) -> str:
        """Delete the tag, or with a digest in the name the manifest and with it all its tags; the digest.

        :raises RegistryError: the registry does not allow it. :raises NotFound: there is none.
        """
        known = self.reference.digest or self._head(self._own).digest
        place = self.reference.digest or self.reference.tag
        scope = self._scope("pull,push,delete")
        try:
            answer = self._own.ask("DELETE", f"/v2/{self._own.repository}/manifests/{place}", scope, self.name)
        except failures.Refused as error:
            if self.reference.digest or error.status not in (400, 405):
                raise
            base = f"{self.reference.host}/{self.reference.path}".removeprefix("docker.io/")
            hint = f"{base}@{known} deletes the manifest, where the registry allows it, and all its tags with it"
            message = f"{self._own.host} does not delete tags ({self.name})"
            raise failures.Refused(message, hint, status=error.status, code=error.code) from None
        answer.finish()
        return known

    # -- inside

    def _scope(self, actions: str) -> str:
        return f"repository:{self.reference.path}:{actions}"

    def _reading(self, ask: Callable[[Endpoint], T]) -> T:
        """From the first mirror that can, else from the registry. What cannot be reached is not asked again."""
        for endpoint in list(self._mirrors):
            try:
                return ask(endpoint)
            except ContainersError as error:
                endpoint.transport.check()
                if isinstance(error, failures.Unreachable) or getattr(error, "status", 0) >= 500:
                    self._mirrors.remove(endpoint)
        return ask(self._own)

    def _head(self, endpoint: Endpoint) -> Descriptor:
        place = self.reference.digest or self.reference.tag
        where, scope = f"/v2/{endpoint.repository}/manifests/{place}", self._pull_scope(endpoint)
        answer = endpoint.ask("HEAD", where, scope, self.name, headers={"Accept": _ACCEPT}, accept=(405,))
        answer.finish()
        digest, size = answer.headers.get("Docker-Content-Digest") or self.reference.digest, answer.length()
        if answer.status == 200 and digest.startswith("sha256:") and size is not None:
            kind = _type(answer.headers)
            known = kind in descriptor.INDEXES | descriptor.MANIFESTS | descriptor.SCHEMA_1
            return Descriptor(kind if known else "", descriptor.check_digest(digest, self.name), size)
        # A server that does not say the digest: what it sends is read, and what was read has one.
        found, body = endpoint.get(where, scope, self.name, manifest.MANIFEST_SIZE, {"Accept": _ACCEPT})
        return Descriptor(_type(found.headers), manifest.digest(body), len(body))

    def _fetch(self, wanted: Descriptor | None) -> Manifest | Index:
        """A manifest by digest; None is the one that the reference pins."""
        digest = wanted.digest if wanted else self.reference.digest

        def ask(endpoint: Endpoint) -> tuple[Mapping[str, str], bytes]:
            where = f"/v2/{endpoint.repository}/manifests/{digest}"
            answer, body = endpoint.get(where, self._pull_scope(endpoint), self.name, manifest.MANIFEST_SIZE, {"Accept": _ACCEPT})
            _verify(body, digest, f"manifest of {self.name}")
            said = answer.headers.get("Docker-Content-Digest")
            if said and said.startswith("sha256:") and said != digest:
                raise ImageError(f"{self.name}: the registry sends {digest} and calls it {said:.80}", "the registry is broken")
            return answer.headers, body

        headers, body = self._reading(ask)
        if wanted and wanted.size != len(body):
            raise ImageError(f"{self.name}: manifest {wanted.short} has {len(body)} bytes, not {wanted.size}", "its index is broken")
        found = manifest.parse(body, _type(headers) or (wanted.media_type if wanted else None), self._configs)
        if wanted and wanted.media_type and found.media_type != wanted.media_type:
            raise ImageError(f"{self.name}: {wanted.short} was named as {wanted.media_type}, it is {found.media_type}")
        if wanted is None:
            self.resolved = found.descriptor
        return found

    def _pull_scope(self, endpoint: Endpoint) -> str:
        return f"repository:{endpoint.repository}:pull"


def _type(headers: Mapping[str, str]) -> str:
    return (headers.get("Content-Type") or "").partition(";")[0].strip().lower()


def _verify(data: bytes, digest: str, what: str) -> None:
    found = manifest.digest(data)
    if found != digest:
        raise ImageError(f"{what} is not what its digest says: {found}, not {digest}", "the registry, or somebody on the way, changed it")


def _tags(body: bytes, what: str) -> list[str]:
    found: Any = manifest.document(body, f"list of tags of {what}").get("tags") or []
    if not isinstance(found, list) or not all(isinstance(tag, str) and _TAG.match(tag) for tag in found):
        raise RegistryError(f"{what}: the list of its tags is malformed")
    return found


def _next_page(answer: Answer) -> str:
    """Path and query of ``Link: <…>; rel="next"`` (RFC 8288); only ever at the same host."""
    for target, words in re.findall(r"<([^>]*)>([^<]*)", answer.headers.get("Link") or ""):
        if re.search(r';\s*rel="?next"?', words):
            try:
                url = join(answer.url, target)
            except Broken:
                raise RegistryError(f"the list of tags goes on nowhere: {target!r:.80}") from None
            if Origin.of(url).host != answer.origin.host:
                raise RegistryError(f"the list of tags goes on at another host, {Origin.of(url).host}")
            return f"{urlsplit(url).path}?{urlsplit(url).query}"
    return ""
