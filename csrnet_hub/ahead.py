"""Reads the next of many items while one is being processed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Found = TypeVar("Found")


def read_ahead(
    read: Callable[[Item], Found],
    items: Iterable[Item],
    ahead: int,
    changes: Callable[[Item], bool] = lambda item: False,
) -> Generator[Future[Found], None, None]:
    """Yield the reading of each item, in order, as a future with its result or its error. An error
    of ``items`` itself comes after everything that it yielded before.

    Args:
        ahead: number of following items read meanwhile, each by a thread; no more are taken
            from ``items`` or kept in memory. 0: each is read when its turn comes.
        changes: whether an item may change once the next is taken; such an item is read at once,
            in the caller's thread.
    """
    source = iter(items)
    failure: Exception | None = None
    with ThreadPoolExecutor(max(ahead, 1)) as pool:
        waiting: deque[Future[Found]] = deque()
        try:
            while failure is None:
                try:
                    item = next(source)
                except Exception as error:
                    failure = error
                else:
                    waiting.append(_read(read, item) if changes(item) else pool.submit(read, item))
                    del item  # keep only its reading
                if len(waiting) > ahead:
                    yield waiting.popleft()
            while waiting:
                yield waiting.popleft()
        finally:
            pool.shutdown(cancel_futures=True)
    if not isinstance(failure, StopIteration):
        raise failure


def _read(read: Callable[[Item], Found], item: Item) -> Future[Found]:
    done: Future[Found] = Future()
    try:
        done.set_result(read(item))
    except Exception as error:
        done.set_exception(error)
    return done
