"""What clients have seen, and which failures a fault explains."""

import asyncio
import collections


class Excuse:
    """Which failures the contract allows after a fault: those of connections that were opened before a moment."""

    def __init__(self, why, since):
        self.why, self.since = why, since
        self.opened_before = since
        self.until = None  # the fault is over; failures after that are not its
        self.count = 0

    def covers(self, failure):
        late = self.until is not None and failure.ended > self.until
        return failure.opened <= self.opened_before and failure.ended >= self.since and not late


class Failure:
    def __init__(self, kind, opened, text):
        self.kind, self.opened, self.text = kind, opened, text
        self.ended = asyncio.get_running_loop().time()


class Outcomes:
    """Counts what went well, and keeps what did not."""

    def __init__(self, say):
        self.say = say
        self.answered = collections.Counter()
        self.failures, self.excuses, self.findings = [], [], []
        self.excused = collections.Counter()

    def good(self, kind):
        self.answered[kind] += 1

    def bad(self, kind, opened, text):
        self.failures.append(Failure(kind, opened, text))

    def excuse(self, why):
        """From now on; whoever is connected already."""
        self.excuses.append(Excuse(why, asyncio.get_running_loop().time()))
        return self.excuses[-1]

    def find(self, text):
        """Something that is not as it must be."""
        self.findings.append(text)
        self.say("FOUND " + text)

    def settle(self, during):
        """Judges the failures so far. `during` is what has happened since the last time."""
        lost = collections.Counter()
        for failure in self.failures:
            excuse = next((excuse for excuse in self.excuses if excuse.covers(failure)), None)
            if excuse:
                excuse.count += 1
                self.excused[excuse.why] += 1
            else:
                lost[f"{failure.kind}: {failure.text}"] += 1
        self.failures.clear()
        for text, count in lost.items():
            self.find(f"{during}: lost {count} × {text}")
