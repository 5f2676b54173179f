from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pycontainers.errors import UsageError
from pycontainers.images.reference import Reference, check_free, parse, reserved

# Expected values: Docker's distribution/reference, normalize_test.go.
NAMES = {
    "visits": ("docker.io", "library/visits", "latest"),
    "visits:1.2": ("docker.io", "library/visits", "1.2"),
    "user/visits": ("docker.io", "user/visits", "latest"),
    "docker.io/library/visits": ("docker.io", "library/visits", "latest"),
    "localhost/visits": ("localhost", "visits", "latest"),
    "localhost:5000/visits:x": ("localhost:5000", "visits", "x"),
    "registry.example.com/a/b/c:T_1": ("registry.example.com", "a/b/c", "T_1"),
    "Upper/visits": ("Upper", "visits", "latest"),
    "[::1]:5000/a": ("[::1]:5000", "a", "latest"),
    "a__b/c-d.e": ("docker.io", "a__b/c-d.e", "latest"),
    "xn--n3h.com/myimage": ("xn--n3h.com", "myimage", "latest"),
}


@pytest.mark.parametrize("text", NAMES)
def test_normalised(text: str) -> None:
    found = parse(text)
    assert (found.host, found.path, found.tag) == NAMES[text]


def test_digest_leaves_the_tag_away() -> None:
    digest = "sha256:" + "a" * 64
    assert parse(f"visits@{digest}") == Reference("docker.io", "library/visits", "", digest)
    assert parse(f"visits:1@{digest}").familiar == f"visits:1@{digest}"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "not valid"),
        ("Visits", "not valid"),
        ("visits:", "not a tag"),
        ("visits:-x", "not a tag"),
        (f"visits:{'x' * 129}", "not a tag"),
        ("visits@sha256:abc", "not a digest"),
        ("a//b", "not valid"),
        ("a___b", "not valid"),
        ("-a", "not valid"),
        ("a b", "not valid"),
        ("visits\n", "not valid"),
        ("visits:1\n", "not a tag"),
        ("../../etc/passwd", "not"),
        ("exa mple.com/a", "not a host"),
        ("a.com:99999999/b", "not a host"),
        ("a" * 256, "too long"),
        ("a" * 64, "image id"),
    ],
)
def test_refused_with_the_part_that_is_wrong(text: str, part: str) -> None:
    with pytest.raises(UsageError, match=part) as caught:
        parse(text)
    assert caught.value.hint


def test_upper_case_is_offered_in_lower_case() -> None:
    with pytest.raises(UsageError) as caught:
        parse("Visits")
    assert "visits" in caught.value.hint


@pytest.mark.parametrize("text", ["host", "scratch", "host:latest", "library/host", "docker.io/library/scratch"])
def test_reserved_however_written(text: str) -> None:
    assert reserved(parse(text)) in ("host", "scratch")
    with pytest.raises(UsageError, match="reserved"):
        check_free(text)


@pytest.mark.parametrize("text", ["host:mine", "me/host", "example.com/host", "hosts"])
def test_not_reserved(text: str) -> None:
    check_free(text)


_word = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,2})[a-z0-9]{1,8}){0,2}", fullmatch=True)
_host = st.one_of(st.just(""), st.from_regex(r"[a-z][a-z0-9]{0,5}\.[a-z]{2,3}(:[0-9]{1,5})?", fullmatch=True), st.just("localhost"))
_tag = st.one_of(st.just(""), st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True))


@given(_host, st.lists(_word, min_size=1, max_size=4), _tag)
def test_what_is_normalised_stays_so(host: str, words: list[str], tag: str) -> None:
    assume(host or len(words) == 1 or "." not in words[0])  # else the first word is a host
    text = (f"{host}/" if host else "") + "/".join(words) + (f":{tag}" if tag else "")
    found = parse(text)
    assert parse(str(found)) == found == parse(found.familiar)
    assert found.tag == (tag or "latest")


@given(st.text(max_size=60))
def test_anything_is_a_name_or_an_error_of_ours(text: str) -> None:
    try:
        found = parse(text)
    except UsageError:
        return
    assert parse(str(found)) == found
    assert ".." not in str(found) and "\0" not in str(found) and "\n" not in str(found)
