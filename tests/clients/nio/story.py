"""Every story with matrix-nio, one after another, on one server. What goes wrong in one does not keep the next away."""

import asyncio
import sys

from following import following
from rooms import rooms
from sessions import sessions
from talk import talk
from words import words


async def main():
    failed = False
    for story in (talk, words, rooms, following, sessions):
        try:
            await asyncio.wait_for(story(), 280)
        except Exception as error:
            print(f"{story.__name__}: {type(error).__name__}: {error}", file=sys.stderr)
            failed = True
    return failed


sys.exit(asyncio.run(main()))
