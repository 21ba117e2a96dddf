"""A key is revoked in the middle of a long run, which then stops at once instead of failing on.

python examples/revoked_key.py

Once because the error is named, once because of a limit for the last items, which needs no name.
What was done is kept. A second run, with another key, does the rest.
"""

import asyncio
from typing import Any

from antflow import Failures, Pipeline, Retry, Stage, TooManyFailures, backoff

QUESTIONS = [f"question {n}" for n in range(5_000)]


class AuthError(Exception):
    pass


class Service:
    """Answers until its key is revoked, and refuses a question now and then."""

    def __init__(self, good_for: int) -> None:
        self.good_for = good_for
        self.calls = 0

    async def ask(self, question: str) -> str:
        self.calls += 1
        number = self.calls
        await asyncio.sleep(0.001)
        if number > self.good_for:
            raise AuthError("401: the key was revoked")
        if question.endswith("99"):
            raise ValueError("400: no answer to this one")
        return f"answer to {question}"


async def run_until_done(**options: Any) -> None:
    service = Service(good_for=3_000)
    retry = Retry(attempts=5, wait=backoff(0.01), give_up=ValueError)
    pipeline = Pipeline([Stage("Ask", 20, [service.ask], retry=retry)])
    try:
        await pipeline.run(QUESTIONS, **options)
    except TooManyFailures as error:
        print(error)
    begun = pipeline.results
    print(f"{begun}; {service.calls:,} calls")

    service.good_for = 10**9  # a new key
    rest = QUESTIONS[len(begun.outcomes) :]
    refused = [result for result in begun.failed if isinstance(result.error, AuthError)]
    results = await pipeline.run(
        rest, retry_failed=[*refused, *begun.cancelled], on_failures="ignore", **options
    )
    print(f"{results}, {len(begun) + len(results):,} answers in all\n")


async def main() -> None:
    await run_until_done(stop_on=AuthError)
    await run_until_done(max_failures=Failures(share=0.5, of_last=50))


if __name__ == "__main__":
    asyncio.run(main())
