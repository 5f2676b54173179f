"""Errors of what an instruction does get the instruction's place."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ..errors import BuildError, ContainersError
from .cancellation import Cancelled
from .parser import Raw


@contextlib.contextmanager
def placed(raw: Raw, offset: int = 0) -> Iterator[None]:
    """Turns an error without a place into one at this instruction."""
    try:
        yield
    except (BuildError, Cancelled):
        raise
    except ContainersError as error:
        raise raw.error(f"{raw.keyword}: {error.message}", error.hint, offset=offset) from None
    except OSError as error:
        raise raw.error(f"{raw.keyword}: {error.strerror}: {error.filename}", "check that it can be read", offset=offset) from None
