"""Reading the next of many things while one is worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


def read_ahead(
    read: Callable[[Item], Found], items: Iterable[Item], ahead: int
) -> Generator[Future[Found], None, None]:
    """What is read of each item, in turn, as a future: its result, or what the reading raised.

    Args:
        ahead: so many of the next items are read meanwhile, each by a thread; no more are taken
            from ``items`` or kept in memory. 0: each is read when its turn has come.
    """
    with ThreadPoolExecutor(max(ahead, 1)) as pool:
        waiting: deque[Future[Found]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(read, item))
                if len(waiting) > ahead:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            pool.shutdown(cancel_futures=True)
