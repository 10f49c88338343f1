"""Reading the next of many things while one is worked on."""

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
    """What is read of each item, in turn, as a future: its result, or what the reading raised. What
    ``items`` itself raises comes after all that it gave before.

    Args:
        ahead: so many of the next items are read meanwhile, each by a thread; no more are taken
            from ``items`` or kept in memory. 0: each is read when its turn has come.
        changes: whether an item may be another once the next is taken; such a one is read at once,
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
                    del item  # only its reading is kept
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
